// Single precision that was solved again in double precision: a solution that a float cannot hold is
// none.
#include <gtest/gtest.h>

#include <cmath>

#include "cpu/run_batch.hpp"

namespace torchqp::cpu {
namespace {

using support::QpBatch;
using support::QpSolutions;

/// min Q/2 z^2 + z, without constraints or with z <= 1: z = -1 / Q, by itself a number that is within
/// double precision.
QpBatch<float> far_minimum(std::vector<float> Q, bool row) {
  QpBatch<float> batch;
  batch.size = static_cast<int64_t>(Q.size());
  batch.dims.n = 1, batch.dims.m = row, batch.dims.h_upper = row;
  batch.q.assign(Q.size(), 1), batch.Q = std::move(Q);
  if (row) batch.G.assign(batch.Q.size(), 1), batch.h.assign(batch.Q.size(), 1);
  return batch;
}

TEST(Range, WhatAFloatCannotHoldIsNoSolution) {
  for (bool row : {false, true}) {
    const auto batch = far_minimum({1e-42F, 1, 1e-38F}, row);
    Settings settings = default_settings<float>();
    for (bool best_iterate : {false, true}) {
      settings.best_iterate = best_iterate;
      const QpSolutions<float> solutions = solve_all(batch, settings, true);
      EXPECT_EQ(solutions.status(0), Status::kNumericalError) << row << best_iterate;
      EXPECT_TRUE(std::isnan(solutions.z(0)[0])) << row << best_iterate;
      EXPECT_EQ(solutions.status(1), Status::kSolved);
      EXPECT_EQ(solutions.z(1)[0], -1);
      ASSERT_EQ(solutions.status(2), Status::kSolved) << "1e38 is within the range";
      EXPECT_NEAR(solutions.z(2)[0], -1e38F, 1e32F);
    }
  }
}

}  // namespace
}  // namespace torchqp::cpu
