#include "pool.h"

#include <algorithm>
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
  int parts, next = 0, done = 0;
};

class Pool {
 public:
  void run(Job& job) {
    std::unique_lock<std::mutex> hold(lock_);
    hire(job.parts - 1);
    jobs_.push_back(&job);
    wake_.notify_all();
    while (job.next < job.parts) take(job, hold);
    finished_.wait(hold, [&] { return job.done == job.parts; });
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
    }
  }

  void take(Job& job, std::unique_lock<std::mutex>& hold) {
    const int part = job.next++;
    if (job.next == job.parts) jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    hold.unlock();
    job.work(job.context, part);
    hold.lock();
    if (++job.done == job.parts) finished_.notify_all();
  }

  std::mutex lock_;
  std::condition_variable wake_, finished_;
  std::deque<Job*> jobs_;
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
