// Work that threads of XLA's pool share.

#ifndef FLAXNETS_THREADS_H_
#define FLAXNETS_THREADS_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// Calls work(0), ..., work(tasks - 1), on the calling thread and those of the pool that are free.
template <class Work>
void InParallel(ffi::ThreadPool pool, int64_t tasks, const Work& work) {
  struct Progress {
    std::atomic<int64_t> begun{0};
    int64_t ended = 0;
    std::mutex mutex;
    std::condition_variable all_ended;
  };
  auto progress = std::make_shared<Progress>();
  auto take_part = [progress, tasks, &work] {  // A late one finds no task, and no work.
    for (int64_t task; (task = progress->begun++) < tasks;) {
      work(task);
      std::lock_guard lock(progress->mutex);
      if (++progress->ended == tasks) progress->all_ended.notify_one();
    }
  };
  const int64_t helpers = std::min(tasks, pool.num_threads()) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) {
    auto copy = take_part;
    pool.Schedule(std::move(copy));
  }
  take_part();
  std::unique_lock lock(progress->mutex);
  progress->all_ended.wait(lock, [&] { return progress->ended == tasks; });
}

}  // namespace

#endif  // FLAXNETS_THREADS_H_
