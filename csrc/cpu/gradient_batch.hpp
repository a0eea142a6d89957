#pragma once
// The gradients of a batch of solves in their own data, each entry written once.

#include <cstdint>

#include "core/gradients.hpp"

namespace torchqp::cpu {

/// Writes the gradients of members begin .. end - 1, and adds them to batch.sums, where calls for
/// members of the same part must come one after the other, in the order of the members. Elementwise: a
/// member's bits depend on nothing but the member, and the gradient of a matrix Q is symmetric to the
/// last bit (a sum of them is not).
///
/// Cost: one pass over what is written, no memory of its own.
template <class T>
void gradient_batch(const GradientBatch<T>& batch, int64_t begin, int64_t end);

}  // namespace torchqp::cpu
