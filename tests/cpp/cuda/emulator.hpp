#pragma once
// A launch without a GPU: every team of a LaunchPlan runs the kernel's body on emulated lanes, one
// team after the other, in poisoned memory that lies as the plan says.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include "cuda/h100.hpp"
#include "cuda/launch_plan.hpp"
#include "cuda/member_kkt.hpp"
#include "cuda/member_solve.hpp"
#include "support/fiber_team.hpp"
#include "support/packed.hpp"
#include "support/qp.hpp"
#include "support/scratch.hpp"

namespace torchqp::cuda {

/// The members of `own` that are named, in this order, each with a linear term that no other has.
template <class T>
support::QpBatch<T> with_other_terms(const support::QpBatch<T>& own,
                                     const std::vector<int64_t>& members, unsigned seed) {
  support::QpBatch<T> batch = own.pick(members);
  const auto change = support::random_problems<T>(1, batch.q.size(), seed);
  for (size_t i = 0; i < batch.q.size(); ++i) batch.q[i] += change[0][i];
  return batch;
}

/// The problem of a batch whose Q, G and A repeat after `period` members; 1: all have the first one's.
template <class T>
ProblemBatch<T> repeat_matrices(const support::QpBatch<T>& batch, int64_t period) {
  ProblemBatch<T> problem = batch.view();
  for (StridedArray<T>* matrix : {&problem.Q, &problem.G, &problem.A}) {
    matrix->batch.sizes[0] = period;
    if (period == 1) matrix->batch.ndim = 0;
  }
  return problem;
}

/// In which order the emulated lanes run, and who takes the members.
struct Schedule {
  support::LaneOrder order = support::LaneOrder::kForward;
  uint64_t seed = 0;
  bool one_team = false;  ///< one team takes all members, not as many as the plan has

  LaunchPlan of(LaunchPlan plan) const {
    if (one_team) plan.blocks = plan.teams = 1;
    return plan;
  }
};

/// The memory of one team, split as a LaunchPlan or a Split says; guarded and poisoned. Cold memory
/// may be a given place in a workspace.
template <class Scalar>
class TeamMemory {
 public:
  template <class Plan>
  explicit TeamMemory(const Plan& plan, Scalar* cold = nullptr) {
    const auto scalars = [&](int64_t bytes) {
      return scratch_.get<Scalar>(static_cast<size_t>(bytes) / sizeof(Scalar));
    };
    head_ = scratch_.get<unsigned char>(static_cast<size_t>(plan.head_bytes));
    if (cold == nullptr) cold = scalars(plan.cold_bytes);
    arena_.overlays = true;
    if (plan.hot) {
      arena_.coldest = plan.coldest;
      arena_.block = scalars(plan.hot_bytes), arena_.cold_block = cold;
    } else {
      arena_.block = cold;
    }
  }
  bool intact() const { return scratch_.intact(); }

  /// What the team works with, as a kernel makes it. Every lane calls; ends with a sync.
  template <class Object, class... Arguments>
  Object& make(const support::FiberTeam& team, const Arguments&... arguments) {
    Object& object = *reinterpret_cast<Object*>(head_);
    team.single([&] { new (&object) Object(arguments..., arena_); });
    team.template sync<Site::kLoad>();
    return object;
  }

 private:
  support::Scratch scratch_;
  unsigned char* head_;
  qp::Arena<Scalar> arena_;
};

/// What solve_kernel does, in the precision of Scalar; all teams on the lanes of `grid`.
template <class Scalar, class T>
void emulate_solve(const ProblemBatch<T>& problem, const Settings& settings,
                   const SolutionBatch<T>& out, const LaunchPlan& plan, bool retry,
                   support::FiberGrid& grid) {
  using Team = support::FiberTeam;
  using Members = MemberSolver<Scalar, T>;
  const int64_t count = plan.blocks * plan.teams;
  for (int64_t index = 0; index < count; ++index) {
    TeamMemory<Scalar> memory(plan);
    grid.run([&](const Team& team) {
      const auto shape = qp::Shape::of<Team, Scalar>(problem.dims);
      auto& members = memory.template make<Members>(team, shape, settings);
      solve_groups(team, members, problem, out, retry, {index, count}, [] {});
    });
    EXPECT_TRUE(memory.intact());
  }
}

/// What solve_batch does.
template <class T>
void emulate_solve_batch(const ProblemBatch<T>& problem, Settings settings,
                         const SolutionBatch<T>& out, const Device& device,
                         const Schedule& schedule = {}) {
  settings = with_data_precision<T>(settings);
  const auto launch = [&](auto precision, bool retry) {
    using Scalar = decltype(precision);
    const LaunchPlan plan = schedule.of(plan_solve<Scalar>(problem.dims, problem.size, device));
    support::FiberGrid grid(plan.lanes, schedule.order, schedule.seed);
    emulate_solve<Scalar>(problem, settings, out, plan, retry, grid);
  };
  constexpr bool kSingle = sizeof(T) < sizeof(double);
  if (!kSingle || !skips_single(problem.dims)) launch(T(), false);
  if (kSingle) launch(double(), true);
}

/// What kkt_kernel does; all teams on the lanes of `grid`.
template <class T>
void emulate_kkt(const KktBatch<T>& system, const LaunchPlan& plan, support::FiberGrid& grid) {
  using Team = support::FiberTeam;
  using Members = MemberAdjoint<T>;
  const int64_t count = plan.blocks * plan.teams;
  for (int64_t index = 0; index < count; ++index) {
    TeamMemory<T> memory(plan);
    grid.run([&](const Team& team) {
      const auto shape = qp::adjoint_shape<Team, T>(system.dims);
      auto& members = memory.template make<Members>(team, shape);
      for (int64_t i = index; i < system.size; i += count) members.run(team, system, i);
    });
    EXPECT_TRUE(memory.intact());
  }
}

/// What kkt_batch does.
template <class T>
void emulate_kkt_batch(const KktBatch<T>& system, const Device& device,
                       const Schedule& schedule = {}) {
  const LaunchPlan plan = schedule.of(plan_kkt<T>(system.dims, system.size, device));
  support::FiberGrid grid(plan.lanes, schedule.order, schedule.seed);
  emulate_kkt(system, plan, grid);
}

}  // namespace torchqp::cuda
