#pragma once
// The condensed form, for any convex Q: singular, zero (an LP), with bounds, with many rows. One
// iteration factors
//
//   H = Q + rho I + sigma A'A + G' W_rows G + W_bounds,    S = A H^-1 A'.
//
// rho keeps H positive definite; it enters only the step, never a residual, so that iterating
// undoes it. sigma A'A changes no solution (A dz is given) and makes H well conditioned where only
// the equalities hold z.

#include "linalg/cholesky.hpp"
#include "linalg/triangular.hpp"
#include "qp/check_data.hpp"
#include "qp/primal_form.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// What `raise` adds to the pivots of H, relative to its diagonal. In single precision the rounding of
/// large weights makes pivots vanish that a variable's dual residual needs; a dropped one would leave
/// it as it is for good. Refined directions undo what this changes.
template <class Scalar>
inline constexpr double raised_pivot_v = 4.0 * epsilon_v<Scalar>;

template <class Scalar>
struct CondensedForm : PrimalForm<CondensedForm<Scalar>, Scalar> {
  using PrimalForm<CondensedForm<Scalar>, Scalar>::data;
  using PrimalForm<CondensedForm<Scalar>, Scalar>::settings;
  using PrimalForm<CondensedForm<Scalar>, Scalar>::weight;
  Scalar *base, *H, *inverse_H;  ///< [np, np] [np, np] [np]; base = Q + rho I + sigma A'A
  Scalar *U, *S, *inverse_S;     ///< [pp, np] rows of L^-1 A'; [pp, pp] [pp]
  Scalar* g;                     ///< [np]
  Scalar* ones;                  ///< [pp]

  TORCHQP_HD CondensedForm(const Data<Scalar>& problem, const Scale<Scalar>& units,
                           const Settings& choice, Arena<Scalar>& arena)
      : PrimalForm<CondensedForm<Scalar>, Scalar>(problem, units, choice, arena) {
    const Shape& s = problem.shape;
    base = arena.take(int64_t{s.np} * s.np, Heat::kSystem),
    H = arena.take(int64_t{s.np} * s.np, Heat::kFactor), inverse_H = arena.take(s.np);
    U = arena.take(int64_t{s.pp} * s.np, Heat::kSetup),
    S = arena.take(int64_t{s.pp} * s.pp, Heat::kFactor), inverse_S = arena.take(s.pp);
    g = arena.take(s.np), ones = arena.take(s.pp);
  }

  /// Forms base. Returns where Q is convex.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> setup(const Team& team) const {
    const auto convex = is_convex(team);
    form_base(team);
    return convex;
  }

  /// Whether a Cholesky of Q, shifted by the tolerance, succeeds. Uses H.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> is_convex(const Team& team) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
    Scalar largest[1] = {zero};
    for_each_row(team, s.np, [&](int i, int first, int step) {
      const Scalar* from = data.Q + i * s.np;
      Scalar* to = H + i * s.np;
      TORCHQP_ROLLED
      for (int j = first; j <= i; j += step) {
        if (i < s.n) largest[0] = max_norm(largest[0], from[j]);
        to[j] = from[j];
      }
    });
    team.template max_all<Site::kCondensedSetup>(largest);
    const Scalar shift =
        select(largest[0] > zero, largest[0] * broadcast<Scalar>(settings.convexity_tolerance),
               broadcast<Scalar>(1));
    team.for_each(s.np, [&](int i) { H[i * s.np + i] = H[i * s.np + i] + shift; });
    team.template sync<Site::kCondensedSetup>();
    linalg::factor_cholesky<linalg::Pivot::kRequire>(team, H, s.np, s.np, inverse_H, 0.0);
    Scalar sum[1] = {detail::unless_finite(team, inverse_H, s.np)};
    team.template max_all<Site::kCondensedSetup>(sum);
    return sum[0] == zero;
  }

  /// Team: every lane calls; ends without a sync: `factor` has one before it reads base.
  template <class Team>
  TORCHQP_HD_CALL void form_base(const Team& team) const {
    const Shape& s = data.shape;
    const Scalar rho = broadcast<Scalar>(regularisation_v<Scalar>);
    team.for_each(s.pp, [&](int i) { ones[i] = broadcast<Scalar>(1); });
    team.template sync<Site::kCondensedSetup>();
    linalg::add_weighted_gram(team, data.Q, data.A, s.np, s.np, s.pp, ones, base);
    team.for_each(s.np, [&](int i) { base[i * s.np + i] = base[i * s.np + i] + rho; });
  }

  /// U from the factor of H.
  template <class Team>
  TORCHQP_HD_CALL void project_equalities(const Team& team) const {
    const Shape& s = data.shape;
    team.for_each(s.pp * s.np, [&](int i) { U[i] = data.A[i]; });
    team.template sync<Site::kCondensedFactor>();
    linalg::solve_lower_rows(team, H, s.np, s.np, inverse_H, U, s.np, s.pp);
  }

  template <class Team>
  TORCHQP_HD_CALL void factor(const Team& team, const Scalar* w, bool raise = false) const {
    const Shape& s = data.shape;
    team.for_each(s.k, [&](int i) { weight[i] = w[i]; });
    team.template sync<Site::kCondensedFactor>();
    linalg::add_weighted_gram(team, base, data.G, s.np, s.np, s.mp, weight, H);
    if (s.bounds || raise) {
      const Scalar more = broadcast<Scalar>(raised_pivot_v<Scalar>);
      team.for_each(s.np, [&](int i) {
        Scalar& pivot = H[i * s.np + i];
        if (s.bounds) pivot = pivot + weight[s.mp + i];
        if (raise) pivot = fused(pivot, more, pivot);
      });
      team.template sync<Site::kCondensedFactor>();
    }
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, H, s.np, s.np, inverse_H,
                                                  4.0 * epsilon_v<Scalar>);
    if (s.p == 0 || this->soft) return;
    project_equalities(team);
    linalg::multiply_rows<linalg::Into::kReplace>(team, U, s.np, s.pp, U, s.np, s.pp, s.np, S, s.pp,
                                                  true);
    team.for_each(s.pp, [&](int i) {
      Scalar& pivot = S[i * (s.pp + 1)];
      pivot = i < s.p ? pivot + pivot * broadcast<Scalar>(equality_shift_v<Scalar>)
                      : broadcast<Scalar>(1);
    });
    team.template sync<Site::kCondensedFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, S, s.pp, s.pp, inverse_S,
                                                  epsilon_v<Scalar>);
  }

  template <class Team>
  TORCHQP_HD_CALL void direction(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    constraint_transpose(team, data, it.t, g);
    linalg::multiply_transposed<linalg::Into::kAdd>(team, data.A, s.np, s.pp, s.np, it.r_p, g);
    team.for_each(s.np, [&](int i) { it.dz[i] = -(g[i] + it.r_d[i]); });
    team.template sync<Site::kCondensedSolve>();
    linalg::solve_lower(team, H, s.np, s.np, inverse_H, it.dz);
    if (s.p > 0 && !this->soft) {
      linalg::multiply<linalg::Into::kReplace>(team, U, s.np, s.pp, s.np, it.dz, it.dnu);
      team.for_each(s.pp, [&](int i) { it.dnu[i] = it.dnu[i] + it.r_p[i]; });
      team.template sync<Site::kCondensedSolve>();
      linalg::solve_cholesky(team, S, s.pp, s.pp, inverse_S, it.dnu);
      linalg::multiply_transposed<linalg::Into::kReplace>(team, U, s.np, s.pp, s.np, it.dnu, g);
      team.for_each(s.np, [&](int i) { it.dz[i] = it.dz[i] - g[i]; });
      team.template sync<Site::kCondensedSolve>();
    }
    linalg::solve_lower_transposed(team, H, s.np, s.np, inverse_H, it.dz);
    if (this->soft) {
      // A dz - dnu = -r_p: with sigma = 1 the equalities are in H already.
      linalg::multiply<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, it.dz, it.dnu);
      team.for_each(s.pp, [&](int i) { it.dnu[i] = it.dnu[i] + it.r_p[i]; });
    }
    constraint_values(team, data, it.dz, it.dy);
    team.for_each(s.k, [&](int i) { it.dlam[i] = fused(weight[i], it.dy[i], it.t[i]); });
  }

  /// What a factor of H and S that was made elsewhere for it.active needs beside it.
  template <class Team>
  TORCHQP_HD_CALL void adopt_factor(const Team& team, const Iterate<Scalar>& it) const {
    this->weigh_active(team, it);
    team.for_each(data.shape.k, [&](int i) { weight[i] = it.weight[i]; });
    project_equalities(team);
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
