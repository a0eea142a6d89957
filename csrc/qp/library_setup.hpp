#pragma once
// The set-up of the dual form of a whole batch at once, where a library computes its factor of Q and
// its products. What the team of a member does of it, and between which calls:
//
//   lay_out_setup   rows of G scaled; L = Q, V = (A, G)
//                       library   L <- chol(L), V <- V L^-T, K = V_A V_A', X = V_G V_A', T = V_G V_G'
//   couple_setup    with equalities: K <- chol(K), X <- X K^-T; rows that depend on others are dropped
//                       library   T <- T - X X'
//   take_setup      whether Q is safely positive definite; then the solver stands at Prepared::kSchur
//
// The numbers are those of DualForm::setup and DualSchur::form, but for the order in which a library
// sums.

#include "qp/solver.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// From the matrices as they were loaded to what the library works on.
///
///   out  L  [np, np]  V  [pp + mp, np]  of DualSchur; scale.row  [mp], finite  [1]
///
/// Team: every lane calls; entry like that of DualForm::scale_rows; ends without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void lay_out_setup(const Team& team, const Solver<Scalar>& solver) {
  const Data<Scalar>& data = solver.data;
  const DualSchur<Scalar>& schur = solver.dual.schur;
  solver.dual.scale_rows(team);
  schur.take_equalities(team, data);
  team.template sync<Site::kDualSetup>();
  schur.take_rows(team, data);
  const auto finite = detail::finite_matrices(team, data);  // scaled rows are finite as they were
  team.single(
      [&] { solver.finite[0] = select(finite, broadcast<Scalar>(1), broadcast<Scalar>(0)); });
}

/// The factor of the equalities' system and what it leaves of the rows of G.
///
///   in/out  K          [pp, pp]  its lower triangle, rows DualFactor::rows apart
///   in/out  X          [mp, pp]
///   out     inverse_K  [pp]      0 where a row depends on those before it
///
/// Team: every lane calls; K and X are visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void couple_setup(const Team& team, const Solver<Scalar>& solver) {
  const Shape& s = solver.data.shape;
  const DualSchur<Scalar>& schur = solver.dual.schur;
  schur.factor_coupling(team);
  linalg::solve_lower_rows(team, schur.factor.K, schur.factor.rows, s.pp, schur.factor.inverse_K,
                           schur.X, s.pp, s.mp);
}

/// The end of the set-up, once T is there.
///
///   in   factored   whether the library found Q positive definite; where not, L is anything
///   out  definite   [1]  1 where Q is positive definite by definite_v too, else 0
///   out  inverse_L  [np]
///
/// Team: every lane calls with equal arguments; Q and L are visible to all on entry; ends with a sync
/// before what it writes: that is visible after the next.
template <class Team, class Scalar>
TORCHQP_HD_CALL void take_setup(const Team& team, const Solver<Scalar>& solver, bool factored) {
  const Data<Scalar>& data = solver.data;
  const int np = data.shape.np;
  const DualFactor<Scalar>& factor = solver.dual.schur.factor;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1),
               tolerance = broadcast<Scalar>(definite_v<Scalar>);
  Scalar indefinite[1] = {factored ? zero : one};
  team.for_each(np, [&](int i) {
    const Scalar pivot = factor.L[int64_t{i} * (np + 1)];
    const auto safe = pivot * pivot > tolerance * data.Q[int64_t{i} * (np + 1)];
    indefinite[0] = select(both(safe, pivot > zero), indefinite[0], one);
    factor.inverse_L[i] = reciprocal(pivot);
  });
  team.template max_all<Site::kDualSetup>(indefinite);
  team.single([&] { solver.definite[0] = one - indefinite[0]; });
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
