#pragma once
// What the backward passes had to leave out, kept for whoever watches: watch_backward in Python, by
// the operators of schema.cpp.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace torchqp::torch_ops {

/// Hands `info` of one backward pass, as kkt_solve returns it, to every watch that is on, but not
/// under a transform; nearly free when there is no watch. Watches are of all threads: torch runs a
/// backward pass on CUDA tensors in a thread of its own.
void record_backward(const at::Tensor& info);

/// Starts a watch. Returns its number.
int64_t start_watch();

/// What a watch has seen, in the order of the backward passes; nothing once it is stopped.
std::vector<at::Tensor> watch_seen(int64_t watch);

/// Ends a watch and drops what it has seen.
void stop_watch(int64_t watch);

}  // namespace torchqp::torch_ops
