// Launch plans of all sizes, for GPUs that this machine need not have: within the limits of the
// device, and in 64 bits where the batch multiplies.
#include <gtest/gtest.h>

#include <string>

#include "cuda/emulator.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

/// The least GPU that CUDA 13 knows (7.5), and an H100.
constexpr Device kSmallDevice{40, 1024, 65536, 65536, 65536, 0};

Dims dims_of(int n, int m, int p, bool bounds = false, bool diagonal = false) {
  Dims dims;
  dims.n = n, dims.m = m, dims.p = p;
  dims.h_upper = m > 0, dims.lb = dims.ub = bounds, dims.diagonal = diagonal;
  return dims;
}

void expect_within_limits(const LaunchPlan& plan, int64_t size, const Device& device) {
  EXPECT_GE(plan.lanes, 1);
  EXPECT_EQ(plan.lanes & (plan.lanes - 1), 0) << "a power of two";
  EXPECT_EQ(plan.wide, plan.lanes > kWarp);
  EXPECT_EQ(plan.threads() % kWarp, 0) << "whole warps";
  EXPECT_LE(plan.threads(), 1024);
  EXPECT_LE(plan.shared_bytes, device.shared_per_block);
  EXPECT_GE(plan.shared_bytes, (plan.head_bytes + plan.hot_bytes) * plan.teams);
  EXPECT_EQ(plan.head_bytes % 16, 0);
  EXPECT_EQ(plan.hot_bytes % 16, 0);
  EXPECT_EQ(plan.cold_bytes % 16, 0);
  EXPECT_EQ(plan.workspace_bytes, plan.blocks * plan.teams * plan.cold_bytes);
  EXPECT_GE(plan.blocks, size > 0 ? 1 : 0);
  EXPECT_LE((plan.blocks - 1) * plan.teams, size) << "no block without a member";
  EXPECT_LE(plan.blocks, int64_t{device.multiprocessors} * 32) << "all blocks at once";
}

TEST(LaunchPlan, StaysWithinTheLimitsOfTheDevice) {
  for (const Device& device : {kDevice, kSmallDevice})
    for (int n : {1, 2, 5, 6, 7, 16, 17, 24, 31, 33, 64, 65, 100, 128, 129, 200, 500, 1000, 3000})
      for (int m : {0, 1, n, 3 * n})
        for (int p : {0, n / 2})
          for (int64_t size : {int64_t{1}, int64_t{131}, int64_t{4096}, int64_t{100000}})
            for (bool bounds : {false, true}) {
              const Dims dims = dims_of(n, m, p, bounds);
              SCOPED_TRACE("n " + std::to_string(n) + ", m " + std::to_string(m) + ", p " +
                           std::to_string(p) + ", size " + std::to_string(size));
              expect_within_limits(plan_solve<double>(dims, size, device), size, device);
              expect_within_limits(plan_solve<float>(dims, size, device), size, device);
              expect_within_limits(plan_kkt<double>(dims, size, device), size, device);
              expect_within_limits(plan_kkt<float>(dims, size, device), size, device);
              if (!prefers_dual(dims)) continue;
              expect_within_limits(plan_setup<double>(dims, size, device), size, device);
              expect_within_limits(plan_setup<float>(dims, size, device), size, device);
            }
}

TEST(LaunchPlan, TheTeamDependsOnTheSizesAlone) {
  for (int n : {3, 10, 50, 100, 300})
    for (int64_t size : {1, 7, 1000, 1000000}) {
      const Dims dims = dims_of(n, n, 0);
      EXPECT_EQ(plan_solve<double>(dims, size, kDevice).lanes,
                plan_solve<double>(dims, 1, kSmallDevice).lanes);
    }
}

TEST(LaunchPlan, ASetUpByLibrariesHasABlockAMemberAndItsMatricesInTheWorkspace) {
  for (int n : {3, 40, 161, 500, 1000})
    for (int m : {0, n / 2, n}) {
      const Dims dims = dims_of(n, m, n / 5);
      const LaunchPlan plan = plan_setup<double>(dims, 1000, kDevice);
      EXPECT_TRUE(plan.wide);
      EXPECT_EQ(plan.teams, 1);
      EXPECT_TRUE(!plan.hot || plan.coldest == qp::Heat::kVector);
      // Q, L, G, A, V, X, T and K, and what lasts from kernel to kernel.
      const int64_t p = dims.p, rows = m + p;
      const int64_t scalars = 2 * n * n + 2 * rows * n + m * p + m * m + rows * rows + 1 + rows;
      EXPECT_GE(plan.cold_bytes, scalars * 8);
    }
}

TEST(LaunchPlan, SmallProblemsLieInSharedMemoryWhole) {
  const LaunchPlan plan = plan_solve<double>(dims_of(10, 10, 0), 100000, kDevice);
  EXPECT_FALSE(plan.wide);
  EXPECT_EQ(plan.cold_bytes, 0);
  EXPECT_EQ(plan.workspace_bytes, 0);
}

TEST(LaunchPlan, TheFactorOfAnActiveSetIsInSharedMemoryUpTo138Rows) {
  for (int n : {100, 138, 139, 160, 170}) {
    const LaunchPlan plan = plan_solve<double>(dims_of(n, n, 0), 1000, kDevice);
    ASSERT_TRUE(plan.hot) << n;
    EXPECT_EQ(plan.coldest >= qp::Heat::kFactor, n <= 138) << n;
    EXPECT_EQ(prefers_libraries(dims_of(n, n, 0)), n > 160) << n;
    EXPECT_EQ(prefers_libraries(dims_of(n / 2, n - 1, 1)), n > 160) << n;
  }
}

TEST(LaunchPlan, AnyBatchFits) {
  const int64_t huge = int64_t{1} << 40;
  for (int n : {1, 10, 100, 1000}) {
    const LaunchPlan plan = plan_solve<double>(dims_of(n, n, n / 10), huge, kDevice);
    expect_within_limits(plan, huge, kDevice);
    EXPECT_GT(plan.blocks, 0);
  }
  // A workspace beyond 32 bits: 132 blocks of some 240 MB.
  const LaunchPlan large = plan_solve<double>(dims_of(2000, 2000, 200), huge, kDevice);
  EXPECT_GT(large.workspace_bytes, int64_t{1} << 32);
  EXPECT_GT(large.cold_bytes, int64_t{4} * 2000 * 2000 * 8);
}

TEST(LaunchPlan, AnEmptyBatchLaunchesNothing) {
  EXPECT_EQ(plan_solve<double>(dims_of(10, 10, 0), 0, kDevice).blocks, 0);
}

}  // namespace
}  // namespace torchqp::cuda
