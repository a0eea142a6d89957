#include "torch/backward_watch.hpp"

#include <torch/library.h>

#include <atomic>
#include <map>
#include <mutex>

namespace torchqp::torch_ops {
namespace {

struct Watches {
  std::atomic<int64_t> count = 0;  // so that a pass that nobody watches takes no lock
  std::mutex mutex;
  int64_t next = 0;
  std::map<int64_t, std::vector<at::Tensor>> seen;
};

/// Whether a transform stands in for many tensors by this one, which means nothing outside of it.
bool is_wrapped(const at::Tensor& info) {
  return info.key_set().has_any(
      c10::DispatchKeySet({c10::DispatchKey::Batched, c10::DispatchKey::FuncTorchBatched}));
}

Watches& watches() {
  static auto* all = new Watches;  // outlives every thread that may still run a backward pass
  return *all;
}

}  // namespace

void record_backward(const at::Tensor& info) {
  Watches& all = watches();
  if (all.count == 0 || is_wrapped(info)) return;
  const std::lock_guard lock(all.mutex);
  for (auto& [number, seen] : all.seen) seen.push_back(info);
}

int64_t start_watch() {
  Watches& all = watches();
  const std::lock_guard lock(all.mutex);
  all.seen[all.next];
  ++all.count;
  return all.next++;
}

std::vector<at::Tensor> watch_seen(int64_t watch) {
  Watches& all = watches();
  const std::lock_guard lock(all.mutex);
  const auto found = all.seen.find(watch);
  return found == all.seen.end() ? std::vector<at::Tensor>() : found->second;
}

void stop_watch(int64_t watch) {
  Watches& all = watches();
  const std::lock_guard lock(all.mutex);
  all.count -= static_cast<int64_t>(all.seen.erase(watch));
}

TORCH_LIBRARY_IMPL(torchqp, Batched, m) {
  m.impl("record_backward", &record_backward);
}

}  // namespace torchqp::torch_ops
