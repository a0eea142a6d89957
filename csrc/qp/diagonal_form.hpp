#pragma once
// The form for a diagonal Q with few rows: box, simplex, knapsack. Everything but a system of size
// p + m is diagonal,
//
//   h = 1 / (Q + rho + W_bounds),   S = (A, G) diag(h) (A, G)' + diag(0, 1 / W_rows),
//
// so that an iteration costs O((p + m)^2 n + (p + m)^3).

#include "linalg/cholesky.hpp"
#include "linalg/triangular.hpp"
#include "qp/primal_form.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

template <class Scalar>
struct DiagonalForm : PrimalForm<DiagonalForm<Scalar>, Scalar> {
  using PrimalForm<DiagonalForm<Scalar>, Scalar>::data;
  using PrimalForm<DiagonalForm<Scalar>, Scalar>::settings;
  using PrimalForm<DiagonalForm<Scalar>, Scalar>::weight;
  int rows;                   ///< pp + mp
  Scalar *h, *g;              ///< [np] [np]
  Scalar *V, *S, *inverse_S;  ///< [rows, np] rows of (A, G) diag(h); [rows, rows] [rows]
  Scalar *d, *x;              ///< [rows] 1 / W of the rows; multipliers of A, then of G

  TORCHQP_HD DiagonalForm(const Data<Scalar>& problem, const Scale<Scalar>& units,
                          const Settings& choice, Arena<Scalar>& arena)
      : PrimalForm<DiagonalForm<Scalar>, Scalar>(problem, units, choice, arena),
        rows(problem.shape.pp + problem.shape.mp) {
    const Shape& s = problem.shape;
    h = arena.take(s.np), g = arena.take(s.np);
    V = arena.take(int64_t{rows} * s.np, Heat::kSystem);
    S = arena.take(int64_t{rows} * rows, Heat::kFactor);
    inverse_S = arena.take(rows), d = arena.take(rows), x = arena.take(rows);
  }

  /// Returns where Q is convex.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> setup(const Team& team) const {
    Scalar sizes[2] = {broadcast<Scalar>(0), broadcast<Scalar>(0)};
    Scalar &largest = sizes[0], &lowest = sizes[1];  // of |Q|, of -Q
    team.for_each(data.shape.n, [&](int i) {
      largest = max_norm(largest, data.Q[i]);
      lowest = maximum(lowest, -data.Q[i]);
    });
    team.template max_all<Site::kCondensedSetup>(sizes);
    return lowest <= largest * broadcast<Scalar>(settings.convexity_tolerance);
  }

  /// Nothing is formed of Q once and for all.
  template <class Team>
  TORCHQP_HD void form_base(const Team&) const {}

  /// Large weights enter by their reciprocals and make no pivot vanish: there is none to raise.
  template <class Team>
  TORCHQP_HD_CALL void factor(const Team& team, const Scalar* w, bool /*raise*/ = false) const {
    const Shape& s = data.shape;
    const Scalar rho = broadcast<Scalar>(regularisation_v<Scalar>), zero = broadcast<Scalar>(0);
    team.for_each(s.k, [&](int i) { weight[i] = w[i]; });
    team.template sync<Site::kCondensedFactor>();
    team.for_each(s.np, [&](int i) {
      const Scalar curvature = maximum(data.Q[i], zero) + rho;
      h[i] = reciprocal(s.bounds ? curvature + weight[s.mp + i] : curvature);
      TORCHQP_ROLLED
      for (int r = 0; r < s.pp; ++r) V[r * s.np + i] = data.A[r * s.np + i] * h[i];
      TORCHQP_ROLLED
      for (int r = 0; r < s.mp; ++r) V[(s.pp + r) * s.np + i] = data.G[r * s.np + i] * h[i];
    });
    team.template sync<Site::kCondensedFactor>();
    if (rows == 0) return;
    const Scalar* V_G = V + s.pp * s.np;
    Scalar* S_G = S + s.pp * rows;
    constexpr auto kReplace = linalg::Into::kReplace;
    linalg::multiply_rows<kReplace>(team, V, s.np, s.pp, data.A, s.np, s.pp, s.np, S, rows, true);
    linalg::multiply_rows<kReplace>(team, V_G, s.np, s.mp, data.A, s.np, s.pp, s.np, S_G, rows,
                                    false);
    linalg::multiply_rows<kReplace>(team, V_G, s.np, s.mp, data.G, s.np, s.mp, s.np, S_G + s.pp,
                                    rows, true);
    const Scalar shift = broadcast<Scalar>(equality_shift_v<Scalar>), one = broadcast<Scalar>(1);
    const Scalar least = broadcast<Scalar>(sizeof(Element<Scalar>) == 8 ? 1e-30 : 1e-15);
    team.for_each(rows, [&](int i) {
      Scalar& pivot = S[i * (rows + 1)];
      if (i < s.pp) {
        pivot = i < s.p ? pivot + (this->soft ? one : pivot * shift) : one;
        d[i] = zero;
      } else {
        d[i] = reciprocal(maximum(weight[i - s.pp], least));
        pivot = pivot + d[i];
      }
    });
    team.template sync<Site::kCondensedFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, S, rows, rows, inverse_S,
                                                  epsilon_v<Scalar>);
  }

  template <class Team>
  TORCHQP_HD_CALL void direction(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    constexpr auto kReplace = linalg::Into::kReplace;
    team.for_each(s.np, [&](int i) {
      g[i] = s.bounds ? -(it.r_d[i] + it.t[s.mp + i]) : -it.r_d[i];
      it.dz[i] = h[i] * g[i];
    });
    team.template sync<Site::kCondensedSolve>();
    linalg::multiply<kReplace>(team, data.A, s.np, s.pp, s.np, it.dz, x);
    linalg::multiply<kReplace>(team, data.G, s.np, s.mp, s.np, it.dz, x + s.pp);
    team.for_each(rows,
                  [&](int i) { x[i] = x[i] + (i < s.pp ? it.r_p[i] : d[i] * it.t[i - s.pp]); });
    team.template sync<Site::kCondensedSolve>();
    linalg::solve_cholesky(team, S, rows, rows, inverse_S, x);
    team.for_each(s.pp, [&](int i) { it.dnu[i] = x[i]; });
    linalg::multiply_transposed<kReplace>(team, data.A, s.np, s.pp, s.np, x, it.dz);
    linalg::multiply_transposed<linalg::Into::kAdd>(team, data.G, s.np, s.mp, s.np, x + s.pp,
                                                    it.dz);
    team.for_each(s.np, [&](int i) { it.dz[i] = h[i] * (g[i] - it.dz[i]); });
    team.template sync<Site::kCondensedSolve>();
    constraint_values(team, data, it.dz, it.dy);
    team.for_each(s.mp, [&](int i) { it.dlam[i] = x[s.pp + i]; });
    if (s.bounds) {
      team.for_each(s.np, [&](int i) {
        it.dlam[s.mp + i] = fused(weight[s.mp + i], it.dy[s.mp + i], it.t[s.mp + i]);
      });
    }
    team.template sync<Site::kCondensedSolve>();
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
