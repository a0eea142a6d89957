#pragma once
// Memory of the operators' results on the CPU.

#include <c10/core/Allocator.h>

#include <cstddef>

namespace torchqp::torch_ops {

/// Freed results that are kept for later ones of the same size, all threads' together. Not in it: what
/// is alive.
inline constexpr size_t kKeptResults = size_t{64} << 20;

/// Asks for huge pages under fresh memory of many pages, whose first touch is otherwise most of the
/// time that a large gradient takes. A request: where the system knows none, nothing happens.
void advise_huge_pages(void* data, size_t bytes);

/// Memory for results. A small one is torch's own; a large one goes to a pool when it is freed, and
/// from there to the next result of its size: a training step asks for the same sizes as the one
/// before, and fresh pages can cost it as much as its solves. What does not fit into kKeptResults goes
/// back to torch's allocator at once.
///
/// Any thread may allocate, and any may free. Nothing waits, so that a forked process finds the pool
/// usable whatever the other threads were doing.
c10::Allocator* result_allocator();

}  // namespace torchqp::torch_ops
