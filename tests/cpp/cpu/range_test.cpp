// A solution that its type cannot hold is none: a multiplier that overflows, and what single precision
// data have in double precision.
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

/// min 6.8e307 z  s.t.  z <= -4 (three times), 7.875 z <= -4, z >= -4: the fuzzer's.
TEST(Range, AMultiplierThatOverflowsIsNoSolution) {
  QpBatch<double> batch;
  batch.size = 1;
  batch.dims = {1, 4, 0, false, true, true, false, true};
  batch.Q = {0}, batch.q = {6.8115716438142439e+307};
  batch.G = {1, 1, 1, 7.875}, batch.h = {-4, -4, -4, -4}, batch.lb = {-4};
  for (bool best_iterate : {false, true}) {
    Settings settings = default_settings<double>();
    settings.best_iterate = best_iterate;
    const QpSolutions<double> solutions = solve_all(batch, settings, true);
    if (is_solved(solutions.status(0))) {
      EXPECT_EQ(solutions.z(0)[0], -4);
      for (int i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite(solutions.lam(0)[i]));
      EXPECT_TRUE(std::isfinite(solutions.lam_lb(0)[0]));
    } else {
      EXPECT_EQ(solutions.status(0), Status::kNumericalError);
      EXPECT_TRUE(std::isnan(solutions.z(0)[0]));
    }
  }
}

/// min z^2 / 2  s.t.  a z = a, with and without a bound: nu = -1 / a, which the solver's units must not
/// lose on the way.
TEST(Range, AMultiplierBeyondTheProductOfTheUnitsIsKept) {
  for (double a : {1e10, 9.9710909183078876e+237, 1e300, 1e-100})
    for (bool bound : {false, true}) {
      QpBatch<double> batch;
      batch.size = 1;
      batch.dims = {1, 0, 1, false, false, bound, false, false};
      batch.Q = {1}, batch.q = {0}, batch.A = {a}, batch.b = {a};
      if (bound) batch.lb = {-7.12e-307};
      const QpSolutions<double> solutions = solve_all(batch, default_settings<double>(), true);
      ASSERT_EQ(solutions.status(0), Status::kSolved) << a << bound;
      EXPECT_NEAR(solutions.z(0)[0], 1, 1e-12) << a << bound;
      EXPECT_NEAR(solutions.nu(0)[0] * a, -1, 1e-12) << a << bound;
    }
}

/// min 1e300 z_0 + z_1 + 1e300 z_2^2 / 2  s.t.  1e300 z_0 <= 0, z >= (0, 0, 4): the curvature of z_2 is
/// lost where the factors that scale it are multiplied first, and what remains is claimed to be solved.
TEST(Range, NoEntryIsLostToTheProductOfItsFactors) {
  for (bool diagonal : {false, true}) {
    QpBatch<double> batch;
    batch.size = 1;
    batch.dims = {3, 1, 0, false, true, true, false, diagonal};
    batch.Q = diagonal ? std::vector<double>{0, 0, 1e300}
                       : std::vector<double>{0, 0, 0, 0, 0, 0, 0, 0, 1e300};
    batch.q = {1e300, 1, 1e-300}, batch.G = {1e300, 0, 0}, batch.h = {0}, batch.lb = {0, 0, 4};
    const QpSolutions<double> solutions = solve_all(batch, default_settings<double>(), true);
    if (solutions.status(0) == Status::kNumericalError) continue;
    ASSERT_TRUE(is_solved(solutions.status(0))) << diagonal;
    const double *z = solutions.z(0), *lam_lb = solutions.lam_lb(0);
    EXPECT_NEAR(z[2], 4, 1e-8) << diagonal;
    EXPECT_NEAR(lam_lb[2] / 1e300, z[2], 1e-7) << diagonal;
    EXPECT_NEAR(lam_lb[0] / 1e300 - solutions.lam(0)[0], 1, 1e-7) << diagonal;
  }
}

/// min z^2 / 2 - z  s.t.  a z >= limit, z = 1, which contradict each other: a row as small as a is
/// scaled, and its limit with it, which must not become infinite and so none. The fuzzer's.
template <class T>
void contradiction_of_a_small_row(T a, T limit) {
  for (bool bound : {false, true})
    for (int copies : {1, 3}) {
      QpBatch<T> batch;
      batch.size = 1;
      batch.dims = {1, 1, copies, true, false, bound, false, false};
      batch.Q = {1}, batch.q = {-1}, batch.G = {a}, batch.h_lower = {limit};
      batch.A.assign(copies, -4), batch.b.assign(copies, -4);
      if (bound) batch.lb = {0};
      const QpSolutions<T> solutions = solve_all(batch, default_settings<T>(), true);
      EXPECT_FALSE(is_solved(solutions.status(0))) << a << bound << copies;
    }
}

TEST(Range, ALimitIsNotLostToTheScaleOfItsRow) {
  contradiction_of_a_small_row<double>(1e-300, 1e9);
  contradiction_of_a_small_row<double>(1e-290, 1e19);
  contradiction_of_a_small_row<float>(1e-30F, 1e15F);
}

}  // namespace
}  // namespace torchqp::cpu
