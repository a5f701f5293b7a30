// Threads that share work: one pool a process for all kernels. They look for more for 50 microseconds, then sleep.
#pragma once

#include <cstdint>
#include <mutex>

namespace mdpot {

// Calls work(context, part) for part = 0 … parts - 1, on this thread and the pool's, and returns when all are done.
// `work` must not throw. Which thread takes which part means nothing: fewer threads than parts, or others' work in the
// pool, only make it slower.
void run_parts(int parts, void (*work)(void*, int), void* context);

template <class F> void parallel(int parts, F&& f) {
  run_parts(parts, [](void* context, int part) { (*static_cast<F*>(context))(part); }, &f);
}

// Counts the forks that lie between the start and this process: locks that another thread held at a fork stay locked
// in the child forever, so whoever has one makes a new one when this has changed.
uint64_t generation();

// Held for moments only; a fork waits for it, so that it is never found locked in a child.
std::mutex& process_lock();

}  // namespace mdpot
