// What the host asks of the CUDA runtime: the plan's launches with the caller's arguments, in order,
// and no more of them after an error.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "cuda/emulator.hpp"
#include "cuda/runtime.hpp"
#include "cuda/setup_batch.hpp"
#include "cuda/solve_batch.hpp"

namespace torchqp::cuda {
namespace {

const auto kStream = reinterpret_cast<cudaStream_t>(0x5000);
void* const kWorkspace = reinterpret_cast<void*>(0x700000);

/// Problems of every class of lanes, with each option that changes a plan.
std::vector<Dims> all_dims() {
  std::vector<Dims> result;
  for (int n : {1, 4, 10, 20, 30, 50, 100, 300})
    for (int m : {0, n})
      for (int p : {0, n / 5})
        for (bool bounds : {false, true})
          for (bool diagonal : {false, true})
            result.push_back({n, m, p, false, m > 0, bounds, bounds, diagonal});
  return result;
}

/// Problems whose set-up is for libraries: with equalities and without, and rows alone.
const Dims kLarge[] = {{200, 150, 30, false, true},
                       {300, 100, 0, false, true},
                       {200, 0, 0},
                       {100, 180, 20, true, true}};

/// The functions that one pass over members of these sizes calls.
std::vector<Function> calls_of_pass(const Dims& dims) {
  using enum Function;
  std::vector<Function> calls{kSetAttribute, kLaunch, kFactor};
  const auto add = [&](std::initializer_list<Function> more) { calls.insert(calls.end(), more); };
  if (dims.m + dims.p > 0) add({kSolve});
  if (dims.m > 0) add({kMultiply});
  if (dims.p > 0) add({kMultiply, kMultiply, kSetAttribute, kLaunch, kMultiply});
  add({kSetAttribute, kLaunch});
  return calls;
}

/// Checks the two calls of one launch, from `index` on.
void expect_launch(size_t index, const void* kernel, const LaunchPlan& plan) {
  const Runtime& state = runtime();
  ASSERT_LE(index + 2, state.calls.size());
  const Call &allowance = state.calls[index], &launch = state.calls[index + 1];
  EXPECT_EQ(allowance.function, Function::kSetAttribute);
  EXPECT_EQ(allowance.kernel, kernel);
  EXPECT_EQ(allowance.attribute, cudaFuncAttributeMaxDynamicSharedMemorySize);
  EXPECT_EQ(allowance.value, plan.shared_bytes);

  EXPECT_EQ(launch.function, Function::kLaunch);
  EXPECT_EQ(launch.kernel, kernel);
  EXPECT_EQ(int64_t{launch.grid.x}, plan.blocks);
  EXPECT_EQ(launch.grid.y * launch.grid.z, 1u);
  EXPECT_EQ(int64_t{launch.block.x}, int64_t{plan.lanes} * plan.teams);
  EXPECT_EQ(launch.block.y * launch.block.z, 1u);
  EXPECT_EQ(static_cast<int64_t>(launch.shared_bytes), plan.shared_bytes);
  EXPECT_EQ(launch.stream, kStream);

  const size_t last = launch.parameters.size() - 1;
  const Split split = launch.parameter<Split>(last - 1);
  EXPECT_EQ(split.lanes, plan.lanes);
  EXPECT_EQ(split.hot, plan.hot);
  EXPECT_EQ(split.coldest, plan.coldest);
  EXPECT_EQ(split.head_bytes, plan.head_bytes);
  EXPECT_EQ(split.hot_bytes, plan.hot_bytes);
  EXPECT_EQ(split.cold_bytes, plan.cold_bytes);
  EXPECT_EQ(launch.parameter<void*>(last), kWorkspace);
}

template <class T>
const Kernels& table_of(const LaunchPlan& plan) {
  const KernelTable& table = plan.wide ? wide_kernels() : narrow_kernels();
  if constexpr (sizeof(T) == 4) return table.single_precision;
  return table.double_precision;
}

template <class T>
class Host : public testing::Test {
 protected:
  void SetUp() override { runtime() = {}; }

  /// Recognisable: nothing is read on the host.
  static ProblemBatch<T> problem(const Dims& dims, int64_t size) {
    ProblemBatch<T> result;
    result.dims = dims, result.size = size;
    result.Q.data = reinterpret_cast<const T*>(0x1000), result.Q.row = dims.n;
    result.Q.batch.ndim = 1, result.Q.batch.sizes[0] = size, result.Q.batch.strides[0] = 1;
    result.lam0.data = reinterpret_cast<const T*>(0x2000);
    return result;
  }
  static KktBatch<T> system(const Dims& dims, int64_t size) {
    KktBatch<T> result;
    result.dims = dims, result.size = size;
    result.g_z.data = reinterpret_cast<const T*>(0x3000);
    return result;
  }
  static SolutionBatch<T> solution() {
    SolutionBatch<T> result;
    result.z = reinterpret_cast<T*>(0x4000);
    return result;
  }
  static cudaError_t solve(const Dims& dims, int64_t size, const Settings& settings = {}) {
    const Error error =
        solve_batch<T>(problem(dims, size), settings, solution(), kDevice, kWorkspace, kStream);
    EXPECT_EQ(error.blas, 0);
    EXPECT_EQ(error.solver, 0);
    return error.runtime;
  }
  static cudaError_t kkt(const Dims& dims, int64_t size) {
    return kkt_batch<T>(system(dims, size), kDevice, kWorkspace, kStream);
  }

  static constexpr size_t kCalls = sizeof(T) == sizeof(double) ? 2 : 4;  // of one solve
};
using Elements = testing::Types<float, double>;
TYPED_TEST_SUITE(Host, Elements);

TYPED_TEST(Host, ASolveIsTheLaunchesOfItsPlans) {
  using T = TypeParam;
  std::set<int> lanes;
  for (const Dims& dims : all_dims())
    for (int64_t size : {1, 1000, 100000}) {
      SCOPED_TRACE("n " + std::to_string(dims.n) + ", m " + std::to_string(dims.m) + ", p " +
                   std::to_string(dims.p) + ", size " + std::to_string(size));
      runtime() = {};
      ASSERT_EQ(this->solve(dims, size), cudaSuccess);
      const bool skips = sizeof(T) == 4 && skips_single(dims);
      const size_t count = skips ? 2 : this->kCalls;
      ASSERT_EQ(runtime().calls.size(), count);
      const LaunchPlan plan = plan_solve<T>(dims, size, kDevice);
      if (!skips) expect_launch(0, table_of<T>(plan).solve, plan);
      if constexpr (sizeof(T) == 4) {
        const LaunchPlan again = plan_solve<double>(dims, size, kDevice);
        expect_launch(count - 2, table_of<T>(again).retry, again);
      }
      for (size_t i = 1; i < count; i += 2) {
        const Call& call = runtime().calls[i];
        const auto& entry = *static_cast<const Entry*>(call.kernel);
        EXPECT_EQ(entry.kind, Kind::kSolve);
        EXPECT_EQ(entry.wide, plan.lanes > 32);
        EXPECT_EQ(entry.element, sizeof(T));
        EXPECT_EQ(entry.retry, skips || i == 3);
        EXPECT_TRUE(call.parameter<ProblemBatch<T>>(0) == this->problem(dims, size));
        EXPECT_TRUE(call.parameter<SolutionBatch<T>>(2) == this->solution());
      }
      lanes.insert(plan.lanes);
    }
  EXPECT_EQ(lanes.size(), 6u) << "every class of launch_plan.cpp";
}

TYPED_TEST(Host, SettingsArePassedOnWithTheRoundingOfTheData) {
  const double least = sizeof(TypeParam) == 4 ? 1e-5 : 1e-9;
  for (double tolerance : {0.0, least / 2, least * 100}) {
    runtime() = {};
    const Settings settings{3e-5, 2e-6, 17, false, true, tolerance, false};
    ASSERT_EQ(this->solve({10, 10, 0, false, true}, 100, settings), cudaSuccess);
    ASSERT_EQ(runtime().calls.size(), this->kCalls);
    for (size_t i = 1; i < this->kCalls; i += 2) {
      const auto passed = runtime().calls[i].template parameter<Settings>(1);
      EXPECT_EQ(passed.eps_abs, 3e-5);
      EXPECT_EQ(passed.eps_rel, 2e-6);
      EXPECT_EQ(passed.max_iter, 17);
      EXPECT_FALSE(passed.polish);
      EXPECT_TRUE(passed.best_iterate);
      EXPECT_FALSE(passed.near_start);
      EXPECT_EQ(passed.convexity_tolerance, tolerance < least ? least : tolerance);
    }
  }
}

TYPED_TEST(Host, ALinearisedSolveIsTheLaunchOfItsPlan) {
  using T = TypeParam;
  for (const Dims& dims : all_dims())
    for (int64_t size : {1, 1000, 100000}) {
      SCOPED_TRACE("n " + std::to_string(dims.n) + ", m " + std::to_string(dims.m) + ", p " +
                   std::to_string(dims.p) + ", size " + std::to_string(size));
      runtime() = {};
      ASSERT_EQ(this->kkt(dims, size), cudaSuccess);
      ASSERT_EQ(runtime().calls.size(), 2u);
      const LaunchPlan plan = plan_kkt<T>(dims, size, kDevice);
      expect_launch(0, table_of<T>(plan).kkt, plan);
      EXPECT_TRUE(runtime().calls[1].template parameter<KktBatch<T>>(0) ==
                  this->system(dims, size));
    }
}

TYPED_TEST(Host, ALargeSolveIsLaunchesAndTheCallsOfLibrariesBetweenThem) {
  using T = TypeParam;
  for (const Dims& dims : kLarge)
    for (int64_t size : {1, 132, 300}) {
      SCOPED_TRACE("n " + std::to_string(dims.n) + ", size " + std::to_string(size));
      runtime() = {};
      const Error error = solve_batch<T>(this->problem(dims, size), Settings{}, this->solution(),
                                         kDevice, kWorkspace, kStream, kLibraries);
      ASSERT_FALSE(error) << error.message();
      const bool skips = sizeof(T) == 4 && skips_single(dims);
      const LaunchPlan plan = sizeof(T) == 8 || skips ? plan_setup<double>(dims, size, kDevice)
                                                      : plan_setup<float>(dims, size, kDevice);
      std::vector<Function> expected(4, Function::kBlasMode);
      for (int64_t first = 0; first < size; first += plan.blocks)
        for (Function function : calls_of_pass(dims)) expected.push_back(function);
      expected.insert(expected.end(), 2, Function::kBlasMode);
      if (sizeof(T) == 4 && !skips)
        expected.insert(expected.end(), {Function::kSetAttribute, Function::kLaunch});
      std::vector<Function> called;
      int64_t factored = 0, last_group = -1;
      for (const Call& call : runtime().calls) {
        called.push_back(call.function);
        if (call.function == Function::kFactor) factored += call.members;
        if (call.function != Function::kLaunch) continue;
        const auto& entry = *static_cast<const Entry*>(call.kernel);
        EXPECT_TRUE(entry.wide);
        EXPECT_EQ(entry.element, sizeof(T));
        EXPECT_EQ(call.stream, kStream);
        EXPECT_EQ(call.template parameter<void*>(call.parameters.size() - 1), kWorkspace);
        if (entry.kind == Kind::kSolve) continue;
        EXPECT_EQ(entry.retry, skips);
        EXPECT_LE(int64_t{call.grid.x}, plan.blocks);
        EXPECT_EQ(static_cast<int64_t>(call.shared_bytes), plan.shared_bytes);
        if (entry.kind == Kind::kLayOut)
          last_group = call.template parameter<int64_t>(1) + call.grid.x - 1;
      }
      EXPECT_EQ(called, expected);
      EXPECT_EQ(factored, size);
      EXPECT_EQ(last_group, size - 1);
      EXPECT_EQ(runtime().math, CUBLAS_TF32_TENSOR_OP_MATH) << "as its owner had it";
      EXPECT_EQ(runtime().pointer, CUBLAS_POINTER_MODE_DEVICE);
    }
}

TYPED_TEST(Host, AnErrorOfALibraryIsReturnedAndNothingFollowsIt) {
  using T = TypeParam;
  for (const Dims& dims : kLarge) {
    const auto solve = [&] {
      return solve_batch<T>(this->problem(dims, 200), Settings{}, this->solution(), kDevice,
                            kWorkspace, kStream, kLibraries);
    };
    runtime() = {};
    ASSERT_FALSE(solve());
    const std::vector<Call> whole = runtime().calls;
    std::set<Function> refused;
    for (size_t failing = 0; failing < whole.size(); ++failing) {
      const Function function = whole[failing].function;
      const bool restores = failing > 3 && function == Function::kBlasMode;
      runtime() = {};
      runtime().failing = static_cast<int>(failing);
      const Error error = solve();
      refused.insert(function);
      if (restores) continue;  // the answer is there
      const bool of_runtime = function == Function::kSetAttribute || function == Function::kLaunch;
      const bool of_solver = function == Function::kFactor;
      EXPECT_TRUE(error);
      EXPECT_EQ(error.runtime, of_runtime ? cudaErrorLaunchOutOfResources : cudaSuccess);
      EXPECT_EQ(error.solver, of_solver ? CUSOLVER_STATUS_INTERNAL_ERROR : 0);
      EXPECT_EQ(error.blas, of_runtime || of_solver ? 0 : CUBLAS_STATUS_EXECUTION_FAILED);
      const std::string name = of_runtime ? "CUDA: " : of_solver ? "cuSOLVER: " : "cuBLAS: ";
      EXPECT_EQ(error.message().rfind(name, 0), 0u) << error.message();
      for (size_t i = failing + 1; i < runtime().calls.size(); ++i)
        EXPECT_EQ(runtime().calls[i].function, Function::kBlasMode) << "gives the modes back";
      EXPECT_EQ(runtime().math, CUBLAS_TF32_TENSOR_OP_MATH);
      EXPECT_EQ(runtime().pointer, CUBLAS_POINTER_MODE_DEVICE);
    }
    EXPECT_GE(refused.size(), dims.m + dims.p > 0 ? 6u : 4u);
  }
}

TYPED_TEST(Host, WithoutLibrariesABlockDoesAllOfALargeProblem) {
  for (const Dims& dims : kLarge) {
    runtime() = {};
    EXPECT_EQ(this->solve(dims, 300), cudaSuccess);
    for (const Call& call : runtime().calls) {
      EXPECT_TRUE(call.function == Function::kSetAttribute || call.function == Function::kLaunch);
    }
  }
}

TYPED_TEST(Host, TheWorkspaceIsThatOfThePlans) {
  using T = TypeParam;
  int needed = 0, larger = 0;
  for (const Dims& dims : all_dims())
    for (int64_t size : {0, 1, 1000, 100000}) {
      const int64_t first = plan_solve<T>(dims, size, kDevice).workspace_bytes;
      const int64_t again = plan_solve<double>(dims, size, kDevice).workspace_bytes;
      const size_t most = static_cast<size_t>(first > again ? first : again);
      EXPECT_EQ(solve_workspace_bytes<T>(dims, size, kDevice, false), most);
      const size_t backward = static_cast<size_t>(plan_kkt<T>(dims, size, kDevice).workspace_bytes);
      EXPECT_EQ(kkt_workspace_bytes<T>(dims, size, kDevice), backward);
      needed += most > 0 && backward > 0;
      size_t with_libraries = most;
      if (prefers_libraries(dims))
        with_libraries = std::max(most, sizeof(T) == 8 || skips_single(dims)
                                            ? setup_workspace_bytes<double>(dims, size, kDevice)
                                            : setup_workspace_bytes<T>(dims, size, kDevice));
      EXPECT_EQ(solve_workspace_bytes<T>(dims, size, kDevice, true), with_libraries);
      larger += with_libraries > most;
    }
  EXPECT_GT(needed, 0);
  EXPECT_EQ(larger > 0, sizeof(T) == 8) << "else double precision, block by block, takes more";
}

TYPED_TEST(Host, AnEmptyBatchLaunchesNothing) {
  for (const Dims& dims : all_dims()) {
    EXPECT_EQ(this->solve(dims, 0), cudaSuccess);
    EXPECT_EQ(this->kkt(dims, 0), cudaSuccess);
  }
  EXPECT_TRUE(runtime().calls.empty());
}

TYPED_TEST(Host, AnErrorIsReturnedAndNothingFollowsIt) {
  for (int n : {10, 100}) {
    const Dims dims{n, n, 0, false, true};
    for (int failing = 0; failing < static_cast<int>(this->kCalls); ++failing) {
      runtime() = {};
      runtime().failing = failing;
      EXPECT_EQ(this->solve(dims, 1000), cudaErrorLaunchOutOfResources);
      EXPECT_EQ(runtime().calls.size(), static_cast<size_t>(failing) + 1);
    }
    for (int failing : {0, 1}) {
      runtime() = {};
      runtime().failing = failing;
      EXPECT_EQ(this->kkt(dims, 1000), cudaErrorLaunchOutOfResources);
      EXPECT_EQ(runtime().calls.size(), static_cast<size_t>(failing) + 1);
    }
  }
}

TEST(QueryDevice, ReadsEachPropertyOfTheDeviceAskedFor) {
  runtime() = {};
  Device device;
  ASSERT_EQ(query_device(3, device), cudaSuccess);
  EXPECT_EQ(device.multiprocessors, attribute_of_device(cudaDevAttrMultiProcessorCount));
  EXPECT_EQ(device.threads_per_multiprocessor,
            attribute_of_device(cudaDevAttrMaxThreadsPerMultiProcessor));
  EXPECT_EQ(device.registers_per_multiprocessor,
            attribute_of_device(cudaDevAttrMaxRegistersPerMultiprocessor));
  EXPECT_EQ(device.shared_per_multiprocessor,
            attribute_of_device(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  EXPECT_EQ(device.shared_per_block, attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  EXPECT_EQ(device.shared_reserved, attribute_of_device(cudaDevAttrReservedSharedMemoryPerBlock));
  ASSERT_EQ(runtime().calls.size(), 6u);
  for (const Call& call : runtime().calls) EXPECT_EQ(call.value, 3);
}

TEST(QueryDevice, ReturnsTheErrorOfEachCall) {
  for (int failing = 0; failing < 6; ++failing) {
    runtime() = {};
    runtime().failing = failing;
    runtime().error = cudaErrorInvalidDevice;
    Device device;
    EXPECT_EQ(query_device(0, device), cudaErrorInvalidDevice);
    EXPECT_EQ(runtime().calls.size(), static_cast<size_t>(failing) + 1);
  }
}

}  // namespace
}  // namespace torchqp::cuda
