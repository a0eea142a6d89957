#pragma once
// The two halves of the LPGD adjoint around its solves, for a range of a batch.

#include <cstdint>

#include "core/lpgd.hpp"

namespace torchqp::cpu {

/// Writes the moved problems of members begin .. end - 1, at all ends. Elementwise: a member's bits
/// depend on nothing but the member.
///
/// Cost: one pass over what is read and written, no memory of its own.
template <class T>
void lpgd_move_batch(const LpgdBatch<T>& batch, int64_t begin, int64_t end);

/// Writes the differences of members begin .. end - 1; as above.
template <class T>
void lpgd_difference_batch(const LpgdBatch<T>& batch, int64_t begin, int64_t end);

}  // namespace torchqp::cpu
