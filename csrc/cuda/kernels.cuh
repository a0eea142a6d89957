#pragma once
// The kernels over one kind of team: shells that find their team's memory and run the bodies of
// member_solve.hpp and member_kkt.hpp. Included by one .cu file a team, so that they compile side by
// side.

#include <new>

#include "cuda/kernel_table.hpp"
#include "cuda/member_kkt.hpp"
#include "cuda/member_solve.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

/// What a kernel is told beside its data.
struct Split {
  int lanes;
  bool hot;
  qp::Heat coldest;
  int64_t head_bytes, hot_bytes, cold_bytes;
};

Split split_of(const LaunchPlan& plan) {
  return {plan.lanes, plan.hot, plan.coldest, plan.head_bytes, plan.hot_bytes, plan.cold_bytes};
}

/// A team of this block, its place among all teams of the launch, and its memory.
template <class Team, class Scalar>
struct Place {
  Team team;
  int64_t index, count;
  void* head;
  qp::Arena<Scalar> arena;

  __device__ Place(const Split& split, unsigned char* shared, unsigned char* workspace)
      : team(make_team(split.lanes)) {
    const int teams = teams_in_block(split.lanes), mine = team_in_block(split.lanes);
    index = block_index() * teams + mine;
    count = block_count() * teams;
    unsigned char* own = shared + mine * (split.head_bytes + split.hot_bytes);
    unsigned char* cold = workspace + index * split.cold_bytes;
    head = own;
    arena.coldest = split.coldest;
    arena.overlays = true;
    if (split.hot) {
      arena.block = reinterpret_cast<Scalar*>(own + split.head_bytes);
      arena.cold_block = reinterpret_cast<Scalar*>(cold);
    } else {
      arena.coldest = qp::Heat::kData;
      arena.block = reinterpret_cast<Scalar*>(cold);
    }
  }

  __device__ static Team make_team(int lanes) {
    if constexpr (std::is_same_v<Team, NarrowTeam>) {
      return NarrowTeam(lanes);
    } else {
      return Team();
    }
  }
};

extern __shared__ __align__(16) unsigned char shared_memory[];

template <class Team, class Scalar, class T>
__global__ void solve_kernel(const __grid_constant__ ProblemBatch<T> problem,
                             const __grid_constant__ Settings settings,
                             const __grid_constant__ SolutionBatch<T> out,
                             const __grid_constant__ Split split, unsigned char* workspace,
                             bool retry) {
  using Members = MemberSolver<Scalar, T>;
  Place<Team, Scalar> place(split, shared_memory, workspace);
  Members& members = *static_cast<Members*>(place.head);
  place.team.single([&] {
    new (&members)
        Members(qp::Shape::of<Team, Scalar>(problem.dims), settings, place.arena);
  });
  place.team.template sync<Site::kLoad>();
  solve_groups(place.team, members, problem, out, retry, place.index, place.count);
}

template <class Team, class T>
__global__ void kkt_kernel(const __grid_constant__ KktBatch<T> system,
                           const __grid_constant__ Split split, unsigned char* workspace) {
  using Members = MemberAdjoint<T>;
  Place<Team, T> place(split, shared_memory, workspace);
  Members& members = *static_cast<Members*>(place.head);
  place.team.single([&] {
    new (&members) Members(qp::adjoint_shape<Team, T>(system.dims), place.arena);
  });
  place.team.template sync<Site::kLoad>();
  for (int64_t i = place.index; i < system.size; i += place.count)
    members.run(place.team, system, i);
}

/// Raises the kernel's limit of shared memory where the plan needs it, and launches.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchPlan& plan, cudaStream_t stream,
                   Arguments&&... arguments) {
  if (plan.blocks == 0) return cudaSuccess;
  const auto bytes = static_cast<int>(plan.shared_bytes);
  cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  kernel<<<dim3(static_cast<unsigned>(plan.blocks)), dim3(static_cast<unsigned>(plan.threads())),
           static_cast<size_t>(plan.shared_bytes), stream>>>(
      std::forward<Arguments>(arguments)...);
  return cudaGetLastError();
}

template <class Team, class T>
cudaError_t launch_solve(const ProblemBatch<T>& problem, const Settings& settings,
                         const SolutionBatch<T>& out, const LaunchPlan& plan, void* workspace,
                         cudaStream_t stream) {
  return launch(solve_kernel<Team, T, T>, plan, stream, problem, settings, out, split_of(plan),
                static_cast<unsigned char*>(workspace), false);
}

template <class Team, class T>
cudaError_t launch_retry(const ProblemBatch<T>& problem, const Settings& settings,
                         const SolutionBatch<T>& out, const LaunchPlan& plan, void* workspace,
                         cudaStream_t stream) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return cudaSuccess;
  } else {
    return launch(solve_kernel<Team, double, T>, plan, stream, problem, settings, out,
                  split_of(plan), static_cast<unsigned char*>(workspace), true);
  }
}

template <class Team, class T>
cudaError_t launch_kkt(const KktBatch<T>& system, const LaunchPlan& plan, void* workspace,
                       cudaStream_t stream) {
  return launch(kkt_kernel<Team, T>, plan, stream, system, split_of(plan),
                static_cast<unsigned char*>(workspace));
}

}  // namespace

template <class Team>
const KernelTable& kernels_of() {
  static constexpr KernelTable table{
      {launch_solve<Team, float>, launch_retry<Team, float>, launch_kkt<Team, float>},
      {launch_solve<Team, double>, launch_retry<Team, double>, launch_kkt<Team, double>}};
  return table;
}

}  // namespace torchqp::cuda
