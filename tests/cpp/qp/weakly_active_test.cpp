// Rows that hold with the multiplier zero, which rounding makes a little more or less.
#include <gtest/gtest.h>

#include <random>

#include "qp/run_solver.hpp"

namespace torchqp::qp {
namespace {

constexpr int kN = 4, kM = 6;

/// A problem solved by z: its first row holds with multiplier 1, the next two with 0, the others do
/// not. With bounds, which are far away, it takes the condensed form; else the dual one.
support::QpBatch<double> weakly_active_problem(unsigned seed, bool bounds, std::vector<double>& z) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  support::QpBatch<double> batch;
  batch.size = 1;
  batch.dims.n = kN, batch.dims.m = kM, batch.dims.h_upper = true;
  batch.dims.lb = batch.dims.ub = bounds;
  std::vector<double> root(kN * kN);
  z.assign(kN, 0);
  for (std::vector<double>* values : {&root, &z})
    for (double& x : *values) x = normal(random);
  batch.G.resize(kM * kN);
  for (double& x : batch.G) x = normal(random);
  batch.Q.assign(kN * kN, 0), batch.q.assign(kN, 0), batch.h.assign(kM, 0);
  for (int i = 0; i < kN; ++i) {
    batch.Q[i * kN + i] = 0.1;
    for (int j = 0; j < kN; ++j)
      for (int k = 0; k < kN; ++k) batch.Q[i * kN + j] += root[i * kN + k] * root[j * kN + k];
  }
  for (int i = 0; i < kN; ++i) {
    batch.q[i] = -batch.G[i];
    for (int j = 0; j < kN; ++j) batch.q[i] -= batch.Q[i * kN + j] * z[j];
  }
  for (int r = 0; r < kM; ++r) {
    batch.h[r] = r < 3 ? 0 : 1;
    for (int j = 0; j < kN; ++j) batch.h[r] += batch.G[r * kN + j] * z[j];
  }
  if (bounds) batch.lb.assign(kN, -100), batch.ub.assign(kN, 100);
  return batch;
}

TEST(WeaklyActive, MultipliersHaveNoWrongSignToTheBit) {
  for (bool bounds : {false, true}) {
    int held = 0;
    for (unsigned seed = 0; seed < 200; ++seed) {
      std::vector<double> z;
      const auto batch = weakly_active_problem(seed, bounds, z);
      const auto out = run_solver<double>(support::SerialLaunch{}, batch, {Settings{}})[0];
      const std::string label = "seed " + std::to_string(seed) + (bounds ? ", bounds" : ", rows");
      ASSERT_EQ(out[kStatus], 0) << label;
      EXPECT_EQ(out[kResiduals + 2], 0) << label << ": signs of multipliers";
      const double *lam = out.data() + kZ + kN, *active = lam + kM + (bounds ? kN : 0);
      for (int j = 0; j < kN; ++j) EXPECT_NEAR(out[kZ + j], z[j], 1e-6) << label;
      EXPECT_NEAR(lam[0], 1, 1e-6) << label;
      for (int r = 0; r < kM; ++r) EXPECT_GE(lam[r], 0) << label << ", row " << r;
      for (int r = 1; r < 3; ++r) held += active[r] != 0;
    }
    EXPECT_GT(held, 20) << "rows that were kept in spite of their multiplier";
  }
}

}  // namespace
}  // namespace torchqp::qp
