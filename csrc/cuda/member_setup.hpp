#pragma once
// One team's part of a batch whose set-up is computed by cuBLAS and cuSOLVER: what stands before,
// between and after their calls. The bodies of three kernels; tests run them on emulated lanes.
//
// From kernel to kernel a member keeps its place in the workspace, where all that the library works on
// lies. What else must last is kept there too: shared memory is another block's by then.

#include "cuda/member_solve.hpp"
#include "qp/library_setup.hpp"

namespace torchqp::cuda {
TORCHQP_BEGIN_ISA_NAMESPACE

/// A MemberSolver that takes up a set-up made outside. Of its arena all matrices must be cold.
///
/// The object lies in memory that all lanes of its team see.
template <class Scalar, class T>
struct MemberSetup {
  MemberSolver<Scalar, T> members;
  Scalar *finite, *row, *inverse_K;  ///< [1] [mp] [pp] kept from kernel to kernel

  TORCHQP_HD MemberSetup(const qp::Shape& shape, const Settings& settings, qp::Arena<Scalar>& arena)
      : members(shape, settings, arena),
        finite(arena.take(1, qp::Heat::kData)),
        row(arena.take(shape.mp, qp::Heat::kData)),
        inverse_K(arena.take(shape.pp, qp::Heat::kData)) {}

  /// Before the factor of Q.
  ///
  ///   out  L, V  where the library finds this member's
  ///
  /// Team: every lane calls with equal arguments; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void lay_out(const Team& team, const ProblemBatch<T>& problem, int64_t member,
                               Scalar** L, Scalar** V) {
    const qp::Solver<Scalar>& solver = members.solver;
    members.load_matrices(team, problem, member);
    qp::lay_out_setup(team, solver);
    team.single([&] {
      finite[0] = solver.finite[0];
      *L = solver.dual.schur.factor.L, *V = solver.dual.schur.V;
    });
    team.for_each(solver.data.shape.mp, [&](int i) { row[i] = solver.scale.row[i]; });
  }

  /// Between the products with equalities. Team: every lane calls; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void couple(const Team& team) {
    const qp::Solver<Scalar>& solver = members.solver;
    qp::couple_setup(team, solver);
    team.for_each(solver.data.shape.pp,
                  [&](int i) { inverse_K[i] = solver.dual.schur.factor.inverse_K[i]; });
  }

  /// After the last product: `members` then goes on with `member` as with one whose matrices it has.
  ///
  ///   in  info  what cuSOLVER says of the factor of Q: 0 where it is one
  ///
  /// Team: every lane calls with equal arguments; ends with a sync, but see take_setup.
  template <class Team>
  TORCHQP_HD_CALL void take(const Team& team, int info, int64_t member) {
    const qp::Solver<Scalar>& solver = members.solver;
    const qp::Shape& s = solver.data.shape;
    solver.scale.reset(team, s);
    team.for_each(s.mp, [&](int i) { solver.scale.row[i] = row[i]; });  // the same lane's reset
    team.for_each(s.pp, [&](int i) { solver.dual.schur.factor.inverse_K[i] = inverse_K[i]; });
    team.single([&] {
      solver.finite[0] = finite[0];
      members.left = qp::Prepared::kSchur, members.last = member;
    });
    qp::take_setup(team, solver, info == 0);
  }
};

/// The member whose matrices a group of the batch has.
template <class T>
TORCHQP_HD int64_t first_of_group(const ProblemBatch<T>& problem, int64_t group) {
  const qp::MemberOrder order(problem, 1);
  return order.run(group * order.times(), problem.size).member;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cuda
