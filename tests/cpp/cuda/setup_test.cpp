// Solves whose set-up libraries compute: the CPU's outcomes, to the rounding of the set-up.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "cpu/systems.hpp"
#include "cuda/setup_emulator.hpp"

namespace torchqp::cuda {
namespace {

using support::Family;
using support::LaneOrder;
using support::QpBatch;
using support::QpSolutions;

/// A GPU that holds two members at once.
constexpr Device kPair{1, 1024, 65536, 233472, 232448, 1024};

/// Largest difference of two vectors, relative to the largest entry; infinite where one is NaN alone.
template <class T>
double distance(const T* got, const T* expected, int64_t count) {
  double error = 0, size = 1;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    if (got[i] == expected[i]) continue;  // infinite slacks
    const double apart = std::abs(double{got[i]} - double{expected[i]});
    error = std::isfinite(apart) ? std::max(error, apart) : INFINITY;
    size = std::max(size, std::abs(double{expected[i]}));
  }
  return error / size;
}

/// What another order of the set-up's sums may change. At most 6e-13 and 7e-6 were seen here.
template <class T>
constexpr double kTolerance = sizeof(T) == 8 ? 1e-12 : 3e-5;

/// Each member of `got` is what the CPU says: status, values, sides that hold.
template <class T>
void expect_cpu_outcomes(const ProblemBatch<T>& problem, const QpSolutions<T>& got) {
  constexpr double tolerance = kTolerance<T>;
  const Dims& dims = problem.dims;
  QpSolutions<T> expected(dims, problem.size, true);
  cpu::solve_members(problem, default_settings<T>(), expected, 0, problem.size);
  EXPECT_TRUE(got.intact());
  for (int64_t i = 0; i < problem.size; ++i) {
    SCOPED_TRACE("member " + std::to_string(i));
    EXPECT_EQ(got.status(i), expected.status(i));
    EXPECT_LE(distance(got.z(i), expected.z(i), dims.n), tolerance);
    EXPECT_LE(distance(got.nu(i), expected.nu(i), dims.p), tolerance);
    EXPECT_LE(distance(got.lam(i), expected.lam(i), dims.m), tolerance);
    EXPECT_LE(distance(got.slack(i), expected.slack(i), dims.m), tolerance);
    EXPECT_TRUE(std::equal(got.active(i), got.active(i) + dims.m, expected.active(i)));
    // A factor in another precision than the data's is not kept.
    if (!is_solved(expected.status(i)) || (sizeof(T) == 4 && skips_single(dims))) continue;
    EXPECT_LE(distance(got.factor(i), expected.factor(i), factor_size(dims)), tolerance);
  }
}

/// The emulated answers to `problem`, checked.
template <class T, class Scalar = T>
void expect_solved_with_libraries(const ProblemBatch<T>& problem, const Device& device,
                                  LaneOrder order = LaneOrder::kForward) {
  support::FiberGrid grid(setup_lanes<Scalar>(problem.dims, device), order, 5);
  QpSolutions<T> got(problem.dims, problem.size, true);
  emulate_setup_batch<Scalar>(problem, with_data_precision<T>(default_settings<T>()), got.view(),
                              device, grid);
  expect_cpu_outcomes(problem, got);
}

template <class T>
class Setup : public testing::Test {};
using Elements = testing::Types<float, double>;
TYPED_TEST_SUITE(Setup, Elements);

TYPED_TEST(Setup, EveryFamilyHasTheOutcomesOfTheCpu) {
  for (const Family& family : dual_families()) {
    SCOPED_TRACE(family.name);
    const auto batch = support::random_batch<TypeParam>(family, 3, 31);
    for (LaneOrder order : {LaneOrder::kForward, LaneOrder::kReverse, LaneOrder::kShuffled})
      expect_solved_with_libraries(batch.view(), kDevice, order);
  }
}

TYPED_TEST(Setup, MembersThatDoNotFitAtOnceFollowInPasses) {
  for (const Family& family : dual_families()) {
    SCOPED_TRACE(family.name);
    for (int64_t size : {1, 2, 3, 5}) {
      const auto batch = support::random_batch<TypeParam>(family, size, 32);
      expect_solved_with_libraries(batch.view(), kPair);
      const auto launches =
          std::count_if(runtime().calls.begin(), runtime().calls.end(),
                        [](const Call& call) { return call.function == Function::kFactor; });
      EXPECT_EQ(launches, (size + 1) / 2);
    }
  }
}

TYPED_TEST(Setup, FailuresHaveTheOutcomesOfTheCpuAndTouchNoOneElse) {
  const auto troubled = support::troubled_batch<TypeParam>(false);
  for (const Device& device : {kDevice, kPair})
    expect_solved_with_libraries(troubled.batch.view(), device);
}

TYPED_TEST(Setup, SharedMatricesAreSetUpOnce) {
  for (const Family& family : dual_families()) {
    SCOPED_TRACE(family.name);
    const auto own = support::random_batch<TypeParam>(family, 3, 33);
    // Other linear terms for the same members, as the two sides of an LPGD step have them; or for one
    // member, whose matrices all share.
    for (const std::vector<int64_t>& members :
         {std::vector<int64_t>{0, 1, 2, 0, 1, 2}, {1, 1, 1, 1, 1}}) {
      const auto batch = with_other_terms(own, members, 34);
      const auto problem = repeat_matrices(batch, members.size() == 6 ? 3 : 1);
      expect_solved_with_libraries(problem, kPair);
      int64_t factors = 0;
      for (const Call& call : runtime().calls)
        if (call.function == Function::kFactor) factors += call.members;
      EXPECT_EQ(factors, members.size() == 6 ? 3 : 2) << "one a group, or one a team";
    }
  }
}

TYPED_TEST(Setup, WarmStartsHaveTheOutcomesOfTheCpu) {
  for (const Family& family : dual_families()) {
    SCOPED_TRACE(family.name);
    auto batch = support::random_batch<TypeParam>(family, 3, 35);
    const auto cold = cpu::solve_all(batch, default_settings<TypeParam>());
    for (int64_t i = 0; i < batch.size; ++i) {
      batch.z0.insert(batch.z0.end(), cold.z(i), cold.z(i) + family.n);
      batch.nu0.insert(batch.nu0.end(), cold.nu(i), cold.nu(i) + family.p);
      batch.lam0.insert(batch.lam0.end(), cold.lam(i), cold.lam(i) + family.m);
    }
    for (TypeParam& z : batch.z0) z += TypeParam(1e-2);
    expect_solved_with_libraries(batch.view(), kPair);
  }
}

TEST(SetupInDouble, CrowdedFloatDataHaveTheOutcomesOfTheCpu) {
  const Family crowded{"crowded", 10, 18, 2, false, true, false, false, false, false, 0, 0};
  const auto batch = support::random_batch<float>(crowded, 3, 36);
  ASSERT_TRUE(skips_single(batch.dims));
  const auto problem = batch.view();
  expect_solved_with_libraries<float, double>(problem, kPair);
}

TEST(SetupInDouble, DependentEqualitiesAreDropped) {
  const Family family{"equalities", 10, 6, 4, false, true, false, false, false, false, 0, 0};
  auto batch = support::random_batch<double>(family, 2, 37);
  for (int64_t i = 0; i < batch.size; ++i) {  // the last is the sum of the first two
    double *A = batch.A.data() + i * 40, *b = batch.b.data() + i * 4;
    for (int j = 0; j < 10; ++j) A[30 + j] = A[j] + A[10 + j];
    b[3] = b[0] + b[1];
  }
  expect_solved_with_libraries(batch.view(), kDevice);
}

/// cuSOLVER takes any positive pivot; what rounding has left of one is none.
TEST(SetupInDouble, ANearlySingularQIsForTheOtherForm) {
  const Family family{"rows", 12, 14, 0, false, true, false, false, false, false, 0, 0};
  auto batch = support::random_batch<double>(family, 2, 39);
  for (int64_t i = 0; i < batch.size; ++i) {
    double *Q = batch.Q.data() + i * 144, *q = batch.q.data() + i * 12;
    for (int at = 0; at < 144; ++at) Q[at] = at % 13 == 0 ? 1 : 0;
    Q[10 * 12 + 11] = Q[11 * 12 + 10] = 1 - 1e-15;
    q[11] = q[10];  // no slope where there is no curvature
  }
  QpSolutions<double> got(batch.dims, batch.size, true);
  const Settings settings = with_data_precision<double>(default_settings<double>());
  support::FiberGrid grid(setup_lanes<double>(batch.dims, kDevice), LaneOrder::kForward, 0);
  emulate_setup_batch<double>(batch.view(), settings, got.view(), kDevice, grid);
  const QpSolutions<double> expected = cpu::solve_all(batch, default_settings<double>(), true);
  for (int64_t i = 0; i < batch.size; ++i) {
    EXPECT_TRUE(is_solved(got.status(i)));
    EXPECT_EQ(got.factor(i)[0], 0) << "not that of the dual form";
    EXPECT_TRUE(support::same_bits(got.member(i), expected.member(i)));
  }
}

/// Problems beyond a block, through solve_batch; their linearised systems by the factor that it left.
TEST(LargeProblems, HaveTheValuesAndGradientsOfTheCpu) {
  for (const Family& family :
       {Family{"variables", 162, 40, 0, false, true, false, false, false, false, 0, 0},
        Family{"rows", 90, 130, 33, true, true, false, false, false, false, 0.3, 0.1}}) {
    SCOPED_TRACE(family.name);
    const auto batch = support::random_batch<double>(family, 2, 38);
    const ProblemBatch<double> problem = batch.view();
    ASSERT_TRUE(prefers_libraries(problem.dims));
    const Settings settings = with_data_precision<double>(default_settings<double>());
    QpSolutions<double> got(problem.dims, problem.size, true);
    support::FiberGrid grid(setup_lanes<double>(problem.dims, kDevice), LaneOrder::kForward, 0);
    const size_t bytes = solve_workspace_bytes<double>(problem.dims, problem.size, kDevice, true);
    EXPECT_GE(bytes, setup_workspace_bytes<double>(problem.dims, problem.size, kDevice));
    support::Scratch scratch;
    auto* workspace = scratch.get<double>((bytes + 7) / 8);
    runtime() = {};
    runtime().execute = SetupLaunches<double, double>(grid);
    const Error error =
        solve_batch(problem, settings, got.view(), kDevice, workspace, nullptr, kLibraries);
    runtime().execute = nullptr;
    EXPECT_FALSE(error) << error.message();
    EXPECT_TRUE(scratch.intact());
    expect_cpu_outcomes(problem, got);

    cpu::Systems<double> systems(batch, 7);
    systems.solve(true);
    std::vector<std::vector<double>> expected;
    for (int64_t i = 0; i < batch.size; ++i) expected.push_back(systems.answer(i));
    for (int64_t i = 0; i < batch.size; ++i)
      std::copy_n(got.factor(i), factor_size(systems.dims),
                  systems.factor.data() + i * factor_size(systems.dims));
    emulate_kkt_batch(systems.view(true), kDevice);
    for (int64_t i = 0; i < batch.size; ++i) {
      const std::vector<double> answer = systems.answer(i);
      EXPECT_LE(distance(answer.data(), expected[i].data(), answer.size()), 1e-12);
    }
  }
}

}  // namespace
}  // namespace torchqp::cuda
