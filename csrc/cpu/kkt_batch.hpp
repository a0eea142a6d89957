#pragma once
// Linearised KKT solves for a range of the batch: the exact backward pass, its tangents and its
// second derivatives.

#include <cstddef>
#include <cstdint>

#include "core/problem.hpp"

namespace torchqp::cpu {

/// Bytes of scratch that one concurrent call of kkt_batch needs; any content, 64-byte aligned.
template <class T>
size_t kkt_workspace_bytes(const Dims& dims);

/// Solves the system of core/problem.hpp (KktBatch) for members [begin, end). Same contract as
/// solve_batch.
template <class T>
void kkt_batch(const KktBatch<T>& system, int64_t begin, int64_t end, void* workspace);

}  // namespace torchqp::cpu
