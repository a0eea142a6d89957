#include "cuda/launch_plan.hpp"

#include <algorithm>

#include "cuda/member_kkt.hpp"
#include "cuda/member_setup.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

constexpr int64_t kAlignment = 16;  // of every part of a block's shared memory

int64_t aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Warps of one block that keep pace, at most.
constexpr int64_t kMostPaced = 8;

/// Rows or variables beyond which libraries do the set-up. Chosen, not measured: in 227 KB of
/// shared memory a factor in double precision fits beside its vectors up to 138 rows, alone to 170.
constexpr int64_t kMostRowsWithoutLibraries = 160;

/// Lanes of a block that is one team, at least.
constexpr int kLeastWide = 128;

/// Lanes of a team by the rows of its problem's largest matrix, the fastest of 4, 8, .. 512 on an H200.
int lanes_for(const Dims& dims) {
  const int rows = std::max(dims.n, dims.m + dims.p);
  if (rows <= 6) return 4;
  if (rows <= 16) return 8;
  if (rows <= 24) return 16;
  if (rows <= 32) return kWarp;
  if (rows <= 64) return kLeastWide;
  return 256;
}

/// Bytes of the hot and of the cold part of a team's arena.
struct Parts {
  int64_t hot, cold;
};

/// What does not depend on how an arena is split.
struct Kind {
  int lanes;
  int64_t head_bytes;
  Parts (*parts)(const Dims&, qp::Heat);
  qp::Heat coldest = qp::Heat::kData;  ///< that may lie in shared memory
};

template <class Scalar, class Make>
Parts count(qp::Heat coldest, const Make& make) {
  qp::Arena<Scalar> arena;
  arena.coldest = coldest, arena.overlays = true;
  make(arena);
  return {aligned(arena.used * int64_t{sizeof(Scalar)}),
          aligned(arena.cold_used * int64_t{sizeof(Scalar)})};
}

template <class Team, class Scalar>
Parts solve_parts(const Dims& dims, qp::Heat coldest) {
  using Object = MemberSolver<Scalar, Scalar>;
  return count<Scalar>(coldest, [&](qp::Arena<Scalar>& arena) {
    Object(qp::Shape::of<Team, Scalar>(dims), Settings{}, arena);
  });
}

template <class Team, class Scalar>
Parts setup_parts(const Dims& dims, qp::Heat coldest) {
  using Object = MemberSetup<Scalar, Scalar>;
  return count<Scalar>(coldest, [&](qp::Arena<Scalar>& arena) {
    Object(qp::Shape::of<Team, Scalar>(dims), Settings{}, arena);
  });
}

template <class Team, class Scalar>
Parts kkt_parts(const Dims& dims, qp::Heat coldest) {
  using Object = MemberAdjoint<Scalar>;
  return count<Scalar>(coldest, [&](qp::Arena<Scalar>& arena) {
    Object(qp::adjoint_shape<Team, Scalar>(dims), arena);
  });
}

/// Teams that a multiprocessor holds at once.
int64_t teams_at_once(const LaunchPlan& plan, const Device& device) {
  const int64_t own = plan.shared_bytes + (plan.wide ? WideTeam::kSharedBytes : 0);
  if (own > device.shared_per_block) return 0;
  const int64_t by_memory = device.shared_per_multiprocessor / (own + device.shared_reserved);
  const int64_t by_threads = device.threads_per_multiprocessor / plan.threads();
  // The solver's steps use what a thread can have.
  constexpr int64_t kRegisters = 256;
  const int64_t by_registers = device.registers_per_multiprocessor / (kRegisters * plan.threads());
  return std::min({by_memory, by_threads, by_registers}) * plan.teams;
}

LaunchPlan make_plan(const Dims& dims, int64_t size, const Device& device, const Kind& kind) {
  LaunchPlan plan;
  plan.lanes = kind.lanes;
  plan.wide = kind.lanes > kWarp;
  plan.teams = plan.wide ? 1 : kWarp / kind.lanes;
  plan.head_bytes = aligned(kind.head_bytes);
  // Latency is hidden by teams side by side, as long as there are members for them.
  const int64_t each = (size + device.multiprocessors - 1) / std::max(1, device.multiprocessors);
  const int64_t wanted = std::min<int64_t>(plan.wide ? 4 : 8, each);
  const int64_t needed = (each + plan.teams - 1) / plan.teams;  // blocks of a multiprocessor
  int64_t best = -1, chosen_at_once = 1;
  LaunchPlan chosen = plan;
  for (int heat = static_cast<int>(kind.coldest); heat >= -1; --heat) {
    plan.hot = heat >= 0;
    plan.coldest = static_cast<qp::Heat>(std::max(heat, 0));
    const Parts parts = kind.parts(dims, plan.coldest);
    plan.hot_bytes = plan.hot ? parts.hot : 0;
    plan.cold_bytes = plan.hot ? parts.cold : parts.hot + parts.cold;
    plan.shared_bytes = (plan.head_bytes + plan.hot_bytes) * plan.teams;
    const int64_t at_once = teams_at_once(plan, device);
    // From the factors down to the vectors, more teams are no gain for slower memory.
    if (at_once == 0 || (best > 0 && plan.coldest < qp::Heat::kSystem)) continue;
    if (at_once > best) best = at_once, chosen = plan, chosen_at_once = at_once;
    if (best >= wanted) break;
  }
  if (!chosen.wide) {
    // Warps that keep pace share what they fetch of the code; see keep_pace.
    const int64_t side_by_side = std::min<int64_t>(chosen_at_once / chosen.teams, kMostPaced);
    const int64_t fit = device.shared_per_block / std::max<int64_t>(1, chosen.shared_bytes);
    const int64_t warps = std::max<int64_t>(1, std::min({side_by_side, fit, needed}));
    chosen.teams *= static_cast<int>(warps), chosen.shared_bytes *= warps;
    chosen_at_once = std::max<int64_t>(chosen_at_once / chosen.teams, 1) * chosen.teams;
  }
  const int64_t blocks = (size + chosen.teams - 1) / chosen.teams;
  chosen.blocks = std::min(blocks, device.multiprocessors * (chosen_at_once / chosen.teams));
  chosen.workspace_bytes = chosen.blocks * chosen.teams * chosen.cold_bytes;
  return chosen;
}

}  // namespace

template <class Scalar>
LaunchPlan plan_solve(const Dims& dims, int64_t size, const Device& device) {
  const int lanes = lanes_for(dims);
  return make_plan(
      dims, size, device,
      {lanes, sizeof(MemberSolver<Scalar, Scalar>),
       lanes > kWarp ? solve_parts<WideTeam, Scalar> : solve_parts<NarrowTeam, Scalar>});
}

bool prefers_libraries(const Dims& dims) {
  const int64_t rows = int64_t{dims.m} + dims.p;
  return prefers_dual(dims) && std::max<int64_t>(dims.n, rows) > kMostRowsWithoutLibraries;
}

template <class Scalar>
LaunchPlan plan_setup(const Dims& dims, int64_t size, const Device& device) {
  return make_plan(dims, size, device,
                   {std::max(lanes_for(dims), kLeastWide), sizeof(MemberSetup<Scalar, Scalar>),
                    setup_parts<WideTeam, Scalar>, qp::Heat::kVector});
}

template <class Scalar>
LaunchPlan plan_kkt(const Dims& dims, int64_t size, const Device& device) {
  const int lanes = lanes_for(dims);
  return make_plan(dims, size, device,
                   {lanes, sizeof(MemberAdjoint<Scalar>),
                    lanes > kWarp ? kkt_parts<WideTeam, Scalar> : kkt_parts<NarrowTeam, Scalar>});
}

template LaunchPlan plan_solve<float>(const Dims&, int64_t, const Device&);
template LaunchPlan plan_solve<double>(const Dims&, int64_t, const Device&);
template LaunchPlan plan_setup<float>(const Dims&, int64_t, const Device&);
template LaunchPlan plan_setup<double>(const Dims&, int64_t, const Device&);
template LaunchPlan plan_kkt<float>(const Dims&, int64_t, const Device&);
template LaunchPlan plan_kkt<double>(const Dims&, int64_t, const Device&);

}  // namespace torchqp::cuda
