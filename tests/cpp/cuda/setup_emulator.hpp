#pragma once
// A solve with libraries, without a GPU: the host's half itself, whose launches run the kernels' bodies
// on emulated lanes and whose libraries are their stand-ins, all on the host's memory.

#include "cuda/emulator.hpp"
#include "cuda/member_setup.hpp"
#include "cuda/runtime.hpp"
#include "cuda/setup_batch.hpp"

namespace torchqp::cuda {

/// Runs the launches of solve_with_libraries, a block after the other, on the lanes of `grid`.
template <class Scalar, class T>
class SetupLaunches {
 public:
  explicit SetupLaunches(support::FiberGrid& grid) : grid_(grid) {}

  void operator()(const Call& call) {
    const auto& entry = *static_cast<const Entry*>(call.kernel);
    ASSERT_EQ(entry.retry, sizeof(Scalar) != sizeof(T));
    const size_t last = call.parameters.size() - 1;
    const auto split = call.parameter<Split>(last - 1);
    auto* const workspace = call.parameter<unsigned char*>(last);
    ASSERT_EQ(static_cast<int>(call.block.x), split.lanes);
    for (int64_t index = 0; index < int64_t{call.grid.x}; ++index)
      run_block(call, entry.kind, split, workspace, index);
  }

 private:
  using Team = support::FiberTeam;
  using Setup = MemberSetup<Scalar, T>;

  /// What the kernel of `kind` does. Shared memory is as another block left it: poisoned.
  void run_block(const Call& call, Kind kind, const Split& split, unsigned char* workspace,
                 int64_t index) {
    TeamMemory<Scalar> memory(split,
                              reinterpret_cast<Scalar*>(workspace + index * split.cold_bytes));
    const auto begin = [&](const Team& team, const Dims& dims, const Settings& settings) -> Setup& {
      return memory.template make<Setup>(team, qp::Shape::of<Team, Scalar>(dims), settings);
    };
    if (kind == Kind::kCouple) {
      grid_.run(
          [&](const Team& team) { begin(team, call.parameter<Dims>(0), Settings{}).couple(team); });
    } else if (kind == Kind::kLayOut) {
      const auto problem = call.parameter<ProblemBatch<T>>(0);
      const auto group = call.parameter<int64_t>(1) + index;
      const auto pointers = call.parameter<SetupPointers<Scalar>>(2);
      grid_.run([&](const Team& team) {
        begin(team, problem.dims, Settings{})
            .lay_out(team, problem, first_of_group(problem, group), pointers.L + index,
                     pointers.V + index);
      });
    } else {
      ASSERT_EQ(kind, Kind::kFinish);
      const auto problem = call.parameter<ProblemBatch<T>>(0);
      const auto settings = call.parameter<Settings>(1);
      const auto out = call.parameter<SolutionBatch<T>>(2);
      const auto group = call.parameter<int64_t>(3) + index, rounds = call.parameter<int64_t>(4);
      const int info = call.parameter<const int*>(5)[index];
      const bool retry = sizeof(Scalar) != sizeof(T);
      grid_.run([&](const Team& team) {
        Setup& setup = begin(team, problem.dims, settings);
        setup.take(team, info, first_of_group(problem, group));
        solve_groups(team, setup.members, problem, out, retry, {group, call.grid.x, rounds}, [] {});
      });
    }
    EXPECT_TRUE(memory.intact());
  }

  support::FiberGrid& grid_;
};

/// solve_with_libraries in the precision Scalar, of problems of any size.
template <class Scalar, class T>
void emulate_setup_batch(const ProblemBatch<T>& problem, const Settings& settings,
                         const SolutionBatch<T>& out, const Device& device,
                         support::FiberGrid& grid) {
  support::Scratch scratch;
  const size_t bytes = setup_workspace_bytes<Scalar>(problem.dims, problem.size, device);
  auto* workspace = scratch.get<double>((bytes + 7) / 8);
  const KernelTable& table = wide_kernels();
  const Kernels& kernels = sizeof(T) == 4 ? table.single_precision : table.double_precision;
  const bool retry = sizeof(Scalar) != sizeof(T);
  runtime() = {};
  runtime().execute = SetupLaunches<Scalar, T>(grid);
  const Error error =
      solve_with_libraries<Scalar>(retry ? kernels.setup_retry : kernels.setup, problem, settings,
                                   out, device, workspace, nullptr, kLibraries);
  runtime().execute = nullptr;
  EXPECT_FALSE(error) << error.message();
  EXPECT_TRUE(scratch.intact());
}

/// Families that the dual form takes, with and without equalities.
inline std::vector<support::Family> dual_families() {
  // n, m, p, h_lower, h, lb, ub, diagonal, singular, infinite, equalities
  return {{"rows", 12, 14, 0, false, true, false, false, false, false, 0, 0},
          {"equalities", 13, 9, 4, false, true, false, false, false, false, 0, 0},
          {"two-sided", 11, 11, 3, true, true, false, false, false, false, 0.3, 0.2},
          {"odd equalities", 9, 0, 5, false, false, false, false, false, false, 0, 0},
          {"no constraint", 7, 0, 0, false, false, false, false, false, false, 0, 0},
          {"diagonal", 8, 9, 1, false, true, false, false, true, false, 0, 0}};
}

/// Lanes of a team of such a solve.
template <class Scalar>
int setup_lanes(const Dims& dims, const Device& device) {
  return plan_setup<Scalar>(dims, 1, device).lanes;
}

}  // namespace torchqp::cuda
