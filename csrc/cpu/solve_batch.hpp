#pragma once
// The product path on the CPU: W problems in a SIMD register, a plain range of the batch per call.

#include <cstddef>
#include <cstdint>

#include "core/problem.hpp"
#include "core/settings.hpp"

namespace torchqp::cpu {

/// Problems that share a register on this machine for this type: 8 double / 16 float with AVX-512,
/// half with AVX2.
template <class T>
int pack_width();

/// How many of them are solved at once at these sizes: pack_width, or 1 where a pack of matrices
/// would not fit the cache. Threads share a batch best at multiples of it.
template <class T>
int members_per_pack(const Dims& dims);

/// Bytes of scratch that one concurrent call of solve_batch needs; any content, 64-byte aligned.
template <class T>
size_t solve_workspace_bytes(const Dims& dims);

/// Solves the members at places [begin, end) of an order of the batch: the batch's own, except that
/// members with the same matrices stand together (member_order.hpp), so that they are factored once.
/// Calls whose places cover [0, size) solve the whole batch. Reentrant: threads share nothing but
/// the read-only problem.
///
/// A member's bits depend on its own data and on the settings alone, not on begin, end or its
/// neighbours. Never throws, never allocates; the outcome of each member is its status.
template <class T>
void solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                 const SolutionBatch<T>& solution, int64_t begin, int64_t end, void* workspace);

}  // namespace torchqp::cpu
