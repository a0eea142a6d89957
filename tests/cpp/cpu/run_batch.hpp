#pragma once
// solve_batch and kkt_batch called as an operator would call them, with a poisoned and guarded
// workspace of exactly the size they ask for.

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"
#include "support/allocations.hpp"
#include "support/qp.hpp"
#include "support/scratch.hpp"

namespace torchqp::cpu {

/// Solves members [begin, end) into `solutions`.
template <class T>
void solve_members(const ProblemBatch<T>& problem, const Settings& settings,
                   support::QpSolutions<T>& solutions, int64_t begin, int64_t end,
                   unsigned char fill = 0xA5) {
  support::Scratch scratch;
  const size_t bytes = solve_workspace_bytes<T>(problem.dims);
  auto* workspace = scratch.get<unsigned char>(bytes);
  std::memset(workspace, fill, bytes);
  const int64_t before = support::allocations();
  solve_batch(problem, settings, solutions.view(), begin, end, workspace);
  EXPECT_EQ(support::allocations(), before);
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(solutions.intact());
}

/// Solves the whole batch at once.
template <class T>
support::QpSolutions<T> solve_all(const support::QpBatch<T>& batch, const Settings& settings,
                                  bool with_factor = false) {
  support::QpSolutions<T> solutions(batch.dims, batch.size, with_factor);
  solve_members(batch.view(), settings, solutions, 0, batch.size);
  return solutions;
}

}  // namespace torchqp::cpu
