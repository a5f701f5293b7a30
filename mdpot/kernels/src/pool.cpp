#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace mdpot {
namespace {

struct Job {
  void (*work)(void*, int);
  void* context;
  int parts, next = 0;
  std::atomic<int> done{0};
};

// How long a thread looks for what comes next before it parks: an evaluation's sweeps follow each other faster than a
// parked thread wakes up.
constexpr std::chrono::microseconds PATIENCE{50};

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

template <class F> void look_for(F&& found) {
  const auto end = std::chrono::steady_clock::now() + PATIENCE;
  do
    for (int k = 0; k < 16; k++, pause())
      if (found()) return;
  while (std::chrono::steady_clock::now() < end);
}

class Pool {
 public:
  void run(Job& job) {
    std::unique_lock<std::mutex> hold(lock_);
    hire(job.parts - 1);
    jobs_.push_back(&job);
    posted_++;
    wake_.notify_all();
    while (job.next < job.parts) take(job, hold);
    const auto finished = [&] { return job.done == job.parts; };
    hold.unlock();
    look_for(finished);
    hold.lock();
    finished_.wait(hold, finished);
  }

 private:
  void hire(int wanted) {
    try {
      for (; threads_ < wanted; threads_++) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads on this machine: those that there are, and the caller, do the work.
    }
  }

  void serve() {
    std::unique_lock<std::mutex> hold(lock_);
    while (true) {
      wake_.wait(hold, [&] { return !jobs_.empty(); });
      take(*jobs_.front(), hold);
      if (!jobs_.empty()) continue;
      const uint64_t seen = posted_;
      hold.unlock();
      look_for([&] { return posted_ != seen; });
      hold.lock();
    }
  }

  void take(Job& job, std::unique_lock<std::mutex>& hold) {
    const int part = job.next++;
    if (job.next == job.parts) jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    hold.unlock();
    job.work(job.context, part);
    const int parts = job.parts;
    hold.lock();
    // The job is gone as soon as its last part is done.
    if (++job.done == parts) finished_.notify_all();
  }

  std::mutex lock_;
  std::condition_variable wake_, finished_;
  std::deque<Job*> jobs_;
  std::atomic<uint64_t> posted_{0};
  int threads_ = 0;
};

// Never destroyed: its threads outlive every destructor.
struct Process {
  std::mutex lock;
  Pool* pool = nullptr;
  uint64_t generation = 0;
};

Process& process() {
  static Process* const one = [] {
    auto* made = new Process;
#if !defined(_WIN32)
    pthread_atfork([] { process().lock.lock(); }, [] { process().lock.unlock(); },
                   [] {
                     // The child has none of the threads: the pool, maybe locked, is left where it lies.
                     process().pool = nullptr;
                     process().generation++;
                     process().lock.unlock();
                   });
#endif
    return made;
  }();
  return *one;
}

}  // namespace

uint64_t generation() { return process().generation; }

std::mutex& process_lock() { return process().lock; }

void run_parts(int parts, void (*work)(void*, int), void* context) {
  if (parts < 1) return;
  if (parts == 1) return work(context, 0);
  Pool* pool;
  {
    std::lock_guard<std::mutex> hold(process().lock);
    if (!process().pool) process().pool = new Pool;
    pool = process().pool;
  }
  Job job{work, context, parts};
  pool->run(job);
}

}  // namespace mdpot
