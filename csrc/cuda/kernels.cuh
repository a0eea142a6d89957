#pragma once
// The kernels over one kind of team: shells that find their team's memory and run the bodies of
// member_solve.hpp, member_setup.hpp and member_kkt.hpp. Included by one .cu file a team, so that they
// compile side by side.

#include <new>
#include <type_traits>

#include "cuda/kernel_table.hpp"
#include "cuda/member_kkt.hpp"
#include "cuda/member_setup.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

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
                             const __grid_constant__ Split split, unsigned char* workspace) {
  constexpr bool kRetry = !std::is_same_v<Scalar, T>;
  using Members = MemberSolver<Scalar, T>;
  Place<Team, Scalar> place(split, shared_memory, workspace);
  Members& members = *static_cast<Members*>(place.head);
  place.team.single([&] {
    new (&members) Members(qp::Shape::of<Team, Scalar>(problem.dims), settings, place.arena);
  });
  place.team.template sync<Site::kLoad>();
  solve_groups(place.team, members, problem, out, kRetry, {place.index, place.count}, [] {
    if constexpr (std::is_same_v<Team, NarrowTeam>) keep_pace();
  });
}

/// The object of a set-up in the memory of its team, which sees it on return.
template <class Scalar, class T, class Team>
__device__ __noinline__ MemberSetup<Scalar, T>& make_setup(Place<Team, Scalar>& place,
                                                           const Dims& dims,
                                                           const Settings& settings) {
  using Setup = MemberSetup<Scalar, T>;
  Setup& setup = *static_cast<Setup*>(place.head);
  place.team.single(
      [&] { new (&setup) Setup(qp::Shape::of<Team, Scalar>(dims), settings, place.arena); });
  place.team.template sync<Site::kLoad>();
  return setup;
}

template <class Team, class Scalar, class T>
__global__ void lay_out_kernel(const __grid_constant__ ProblemBatch<T> problem, int64_t group,
                               SetupPointers<Scalar> pointers, const __grid_constant__ Split split,
                               unsigned char* workspace) {
  Place<Team, Scalar> place(split, shared_memory, workspace);
  auto& setup = make_setup<Scalar, T>(place, problem.dims, Settings{});
  setup.lay_out(place.team, problem, first_of_group(problem, group + place.index),
                pointers.L + place.index, pointers.V + place.index);
}

template <class Team, class Scalar, class T>
__global__ void couple_kernel(const __grid_constant__ Dims dims,
                              const __grid_constant__ Split split, unsigned char* workspace) {
  Place<Team, Scalar> place(split, shared_memory, workspace);
  make_setup<Scalar, T>(place, dims, Settings{}).couple(place.team);
}

template <class Team, class Scalar, class T>
__global__ void finish_kernel(const __grid_constant__ ProblemBatch<T> problem,
                              const __grid_constant__ Settings settings,
                              const __grid_constant__ SolutionBatch<T> out, int64_t group,
                              int64_t rounds, const int* info, const __grid_constant__ Split split,
                              unsigned char* workspace) {
  constexpr bool kRetry = !std::is_same_v<Scalar, T>;
  Place<Team, Scalar> place(split, shared_memory, workspace);
  auto& setup = make_setup<Scalar, T>(place, problem.dims, settings);
  const int64_t mine = group + place.index;
  setup.take(place.team, info[place.index], first_of_group(problem, mine));
  solve_groups(place.team, setup.members, problem, out, kRetry, {mine, place.count, rounds}, [] {});
}

template <class Team, class T>
__global__ void kkt_kernel(const __grid_constant__ KktBatch<T> system,
                           const __grid_constant__ Split split, unsigned char* workspace) {
  using Members = MemberAdjoint<T>;
  Place<Team, T> place(split, shared_memory, workspace);
  Members& members = *static_cast<Members*>(place.head);
  place.team.single(
      [&] { new (&members) Members(qp::adjoint_shape<Team, T>(system.dims), place.arena); });
  place.team.template sync<Site::kLoad>();
  for (int64_t round = 0; round * place.count < system.size; ++round) {
    if constexpr (std::is_same_v<Team, NarrowTeam>) keep_pace();
    const int64_t i = round * place.count + place.index;
    if (i < system.size) members.run(place.team, system, i);
  }
}

template <class Team, class Scalar, class T>
SetupKernels setup_kernels_on() {
  if constexpr (std::is_same_v<Team, WideTeam>) {
    return {reinterpret_cast<const void*>(&lay_out_kernel<Team, Scalar, T>),
            reinterpret_cast<const void*>(&couple_kernel<Team, Scalar, T>),
            reinterpret_cast<const void*>(&finish_kernel<Team, Scalar, T>)};
  } else {
    return {};
  }
}

template <class Team, class T>
Kernels kernels_on() {
  Kernels kernels{};
  kernels.solve = reinterpret_cast<const void*>(&solve_kernel<Team, T, T>);
  kernels.retry = std::is_same_v<T, double>
                      ? nullptr
                      : reinterpret_cast<const void*>(&solve_kernel<Team, double, T>);
  kernels.kkt = reinterpret_cast<const void*>(&kkt_kernel<Team, T>);
  kernels.setup = setup_kernels_on<Team, T, T>();
  if constexpr (!std::is_same_v<T, double>)
    kernels.setup_retry = setup_kernels_on<Team, double, T>();
  return kernels;
}

}  // namespace

template <class Team>
const KernelTable& kernels_of() {
  static const KernelTable table{kernels_on<Team, float>(), kernels_on<Team, double>()};
  return table;
}

}  // namespace torchqp::cuda
