#pragma once
// What holds for a whole solve with every Scalar; instantiated per Scalar in solve_*_test.cpp,
// which keeps each of them quick to compile.

#include <gtest/gtest.h>

#include <string>

#include "qp/run_solver.hpp"

namespace torchqp::qp {

/// The first width_v<Scalar> members that `pick` names have the serial bits on every team, and each
/// has the bits of its own scalar solve. Returns the serial outputs.
template <class Scalar>
Problems<double> expect_one_solution(const support::QpBatch<Element<Scalar>>& batch,
                                     const HowToSolve& how, const std::string& label) {
  const Problems<double> serial = run_solver<Scalar>(support::SerialLaunch{}, batch, how);
  support::for_each_fiber_launch([&](const auto& launch, const std::string& description) {
    const Problems<double> team = run_solver<Scalar>(launch, batch, how);
    for (int w = 0; w < width_v<Scalar>; ++w)
      EXPECT_TRUE(support::same_bits(team[w], serial[w]))
          << label << ", problem " << w << ", " << description;
  });
  if constexpr (width_v < Scalar >> 1)
    for (int w = 0; w < width_v<Scalar>; ++w) {
      const Problems<double> alone =
          run_solver<Element<Scalar>>(support::SerialLaunch{}, batch.pick({w}), how);
      EXPECT_TRUE(support::same_bits(alone[0], serial[w]))
          << label << ", problem " << w << " alone";
    }
  return serial;
}

template <class Scalar>
class SolveOnTeams : public ::testing::Test {};
TYPED_TEST_SUITE_P(SolveOnTeams);

TYPED_TEST_P(SolveOnTeams, EveryFamilyHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families()) {
    const auto batch = support::random_batch<T>(family, width_v<TypeParam>, 11);
    const HowToSolve how{default_settings<T>(), true};
    const Problems<double> outputs = expect_one_solution<TypeParam>(batch, how, family.name);
    for (const std::vector<double>& out : outputs) EXPECT_EQ(out[kStatus], 0) << family.name;
  }
}

TYPED_TEST_P(SolveOnTeams, SizesAroundAWarpHaveTheSerialBits) {
  using T = Element<TypeParam>;
  for (int n : {31, 32, 33})
    for (bool bounds : {false, true}) {
      const support::Family family = {"warp", n,      n + 1, 2,     false, true,
                                      bounds, bounds, false, false, 0.1,   0};
      const auto batch = support::random_batch<T>(family, width_v<TypeParam>, 16);
      const Problems<double> outputs = expect_one_solution<TypeParam>(
          batch, {default_settings<T>()}, "n = " + std::to_string(n));
      for (const std::vector<double>& out : outputs) EXPECT_EQ(out[kStatus], 0) << n;
    }
}

TYPED_TEST_P(SolveOnTeams, WithoutPolishTheBitsAgreeToo) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families()) {
    if (family.n + family.m > 16) continue;
    const auto batch = support::random_batch<T>(family, width_v<TypeParam>, 12);
    HowToSolve how{default_settings<T>()};
    how.settings.polish = false;
    expect_one_solution<TypeParam>(batch, how, family.name);
  }
}

TYPED_TEST_P(SolveOnTeams, ARevisedActiveSetHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families()) {
    const auto batch = support::random_batch<T>(family, width_v<TypeParam>, 15);
    HowToSolve how{default_settings<T>()};
    how.settings.eps_abs = how.settings.eps_rel = 0.3;  // the first guess of the set is often wrong
    expect_one_solution<TypeParam>(batch, how, family.name);
  }
}

TYPED_TEST_P(SolveOnTeams, AWarmStartHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families()) {
    if (family.n + family.m > 16) continue;
    auto batch = support::random_batch<T>(family, width_v<TypeParam>, 13);
    const int n = family.n, m = family.m, p = family.p;
    HowToSolve how{default_settings<T>()};
    const Problems<double> cold = run_solver<TypeParam>(support::SerialLaunch{}, batch, how);
    for (const std::vector<double>& out : cold) {
      const double* z = out.data() + kZ;
      for (int j = 0; j < n; ++j) batch.z0.push_back(static_cast<T>(z[j] + 1e-3));
      for (int j = 0; j < p; ++j) batch.nu0.push_back(static_cast<T>(z[n + j]));
      for (int j = 0; j < m; ++j) batch.lam0.push_back(static_cast<T>(z[n + p + j]));
    }
    how.warm = true;
    const Problems<double> warm = expect_one_solution<TypeParam>(batch, how, family.name);
    for (const std::vector<double>& out : warm) EXPECT_EQ(out[kStatus], 0) << family.name;
  }
}

TYPED_TEST_P(SolveOnTeams, FailuresHaveTheSerialBitsAndStayAlone) {
  using T = Element<TypeParam>;
  for (bool bounds : {false, true}) {
    const auto troubled = support::troubled_batch<T>(bounds);
    // Packs of four with the same and with other company; scalars take the first of each.
    const std::vector<std::vector<int64_t>> packs = {{0, 1, 2, 3}, {4, 5, 6, 7}, {1, 0, 4, 0},
                                                     {2, 7, 0, 5}, {3, 3, 3, 0}, {5, 4, 3, 2},
                                                     {6, 6, 6, 6}, {7, 0, 0, 0}};
    for (const std::vector<int64_t>& pack : packs) {
      const std::vector<int64_t> picked(pack.begin(), pack.begin() + width_v<TypeParam>);
      const std::string label =
          std::string(bounds ? "bounds" : "rows") + ", pack of member " + std::to_string(picked[0]);
      const Problems<double> outputs = expect_one_solution<TypeParam>(
          troubled.batch.pick(picked), {default_settings<T>(), true}, label);
      for (size_t w = 0; w < picked.size(); ++w)
        EXPECT_EQ(static_cast<Status>(outputs[w][kStatus]), troubled.expected[picked[w]])
            << label << ", problem " << w << " (member " << picked[w] << ")";
    }
  }
}

TYPED_TEST_P(SolveOnTeams, TheIterationLimitStopsEveryTeamAtTheSamePoint) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families())
    for (int limit : {0, 1, 3}) {
      if (family.n + family.m > 16) continue;
      HowToSolve how{default_settings<T>()};
      how.settings.max_iter = limit;
      expect_one_solution<TypeParam>(support::random_batch<T>(family, width_v<TypeParam>, 14), how,
                                     std::string(family.name) + ", limit " + std::to_string(limit));
    }
}

REGISTER_TYPED_TEST_SUITE_P(SolveOnTeams, EveryFamilyHasTheSerialBits,
                            SizesAroundAWarpHaveTheSerialBits, WithoutPolishTheBitsAgreeToo,
                            ARevisedActiveSetHasTheSerialBits, AWarmStartHasTheSerialBits,
                            FailuresHaveTheSerialBitsAndStayAlone,
                            TheIterationLimitStopsEveryTeamAtTheSamePoint);

}  // namespace torchqp::qp
