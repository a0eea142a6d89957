#pragma once
// The dual (Schur) form: Q positive definite, rows only. With equalities projected out,
//
//   s = d + T lam,   T = G P G',   P = Q^-1 - Q^-1 A' (A Q^-1 A')^-1 A Q^-1,
//
// so that after one setup an iteration works on m-dimensional data alone: one Cholesky of T + W^-1
// and two solves.

#include "linalg/cholesky.hpp"
#include "linalg/triangular.hpp"
#include "qp/interior_point.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Pivots below this share of their diagonal entry mean that Q is not safely positive definite.
template <class Scalar>
inline constexpr double definite_v = 64.0 * epsilon_v<Scalar>;
/// Pivots below this share of their diagonal entry mean that a row depends on those above it.
template <class Scalar>
inline constexpr double dependent_v = sizeof(Element<Scalar>) == 8 ? 1e-11 : 1e-5;

/// Factor of the KKT matrix of Q with the rows C = (A, active rows of G):
///   Q = L L',   C Q^-1 C' = K K',   K = [ chol(A Q^-1 A')  0 ; X_active  chol(T_active) ].
template <class Scalar>
struct DualFactor {
  Shape shape;
  int rows;                 ///< pp + mp
  Scalar *L, *inverse_L;    ///< [np, np] [np]
  Scalar *K, *inverse_K;    ///< [rows, rows] [rows]
  Scalar *work_z, *work_c;  ///< [np] [rows]

  TORCHQP_HD DualFactor(const Shape& s, Arena<Scalar>& arena)
      : shape(s),
        rows(s.pp + s.mp),
        L(arena.take(int64_t{s.np} * s.np)),
        inverse_L(arena.take(s.np)),
        K(arena.take(int64_t{s.pp + s.mp} * (s.pp + s.mp))),
        inverse_K(arena.take(s.pp + s.mp)),
        work_z(arena.take(s.np)),
        work_c(arena.take(s.pp + s.mp)) {}

  /// d = -[Q C'; C 0]^-1 g by this factor, where C = (A, G with the rows that `mask` leaves).
  ///
  ///   in   mask      [mp]           nonzero where a row takes part
  ///   in   g_z, g_c  [np], [rows]
  ///   out  d_z, d_c  [np], [rows]
  ///
  /// Team: every lane calls; inputs are visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void solve(const Team& team, const Data<Scalar>& data, const Scalar* mask,
                             const Scalar* g_z, const Scalar* g_c, Scalar* d_z, Scalar* d_c) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0);
    team.for_each(s.np, [&](int i) { work_z[i] = g_z[i]; });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, L, s.np, s.np, inverse_L, work_z);
    linalg::multiply<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, work_z, work_c);
    linalg::multiply<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, work_z, work_c + s.pp);
    team.for_each(rows, [&](int i) {
      const Scalar value = g_c[i] - work_c[i];
      d_c[i] = i < s.pp ? value : select(mask[i - s.pp] != zero, value, zero);
    });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, K, rows, rows, inverse_K, d_c);
    linalg::multiply_transposed<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, d_c, d_z);
    linalg::multiply_transposed<linalg::Into::kAdd>(team, data.G, s.np, s.mp, s.np, d_c + s.pp,
                                                    d_z);
    team.for_each(s.np, [&](int i) { d_z[i] = -(d_z[i] + g_z[i]); });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, L, s.np, s.np, inverse_L, d_z);
  }
};

/// Schur data of Q, A, G that do not depend on the active set, and the factor for a given one.
template <class Scalar>
struct DualSchur {
  Shape shape;
  DualFactor<Scalar> factor;
  Scalar* V;  ///< [max(pp, mp), np] rows of L^-1 A', then of L^-1 G'
  Scalar* X;  ///< [mp, pp]
  Scalar* T;  ///< [mp, mp] symmetric

  TORCHQP_HD DualSchur(const Shape& s, Arena<Scalar>& arena)
      : shape(s),
        factor(s, arena),
        V(arena.take(int64_t{s.pp + s.mp} * s.np)),
        X(arena.take(int64_t{s.mp} * s.pp)),
        T(arena.take(int64_t{s.mp} * s.mp)) {}

  /// Factors Q, forms X and T. Returns where Q is safely positive definite.
  ///
  /// Team: every lane calls; the data are visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> setup(const Team& team, const Data<Scalar>& data) const {
    const Shape& s = shape;
    Scalar* V_A = V;
    Scalar* V_G = V + int64_t{s.pp} * s.np;
    team.for_each(s.np * s.np, [&](int i) { factor.L[i] = data.Q[i]; });
    team.for_each(s.pp * s.np, [&](int i) { V_A[i] = data.A[i]; });
    team.for_each(s.mp * s.np, [&](int i) { V_G[i] = data.G[i]; });
    team.template sync<Site::kDualSetup>();
    linalg::factor_cholesky<linalg::Pivot::kRequire>(team, factor.L, s.np, s.np, factor.inverse_L,
                                                     definite_v<Scalar>);
    linalg::solve_lower_rows(team, factor.L, s.np, s.np, factor.inverse_L, V, s.np, s.pp + s.mp);
    if (s.p > 0) {
      linalg::multiply_rows<linalg::Into::kReplace>(team, V_A, s.np, s.pp, V_A, s.np, s.pp, s.np,
                                                    factor.K, factor.rows, true);
      pad_diagonal(team, factor.K, s.p, s.pp);
      linalg::factor_cholesky<linalg::Pivot::kDrop>(team, factor.K, factor.rows, s.pp,
                                                    factor.inverse_K, dependent_v<Scalar>);
      linalg::multiply_rows<linalg::Into::kReplace>(team, V_G, s.np, s.mp, V_A, s.np, s.pp, s.np, X,
                                                    s.pp, false);
      linalg::solve_lower_rows(team, factor.K, factor.rows, s.pp, factor.inverse_K, X, s.pp, s.mp);
    }
    linalg::multiply_rows<linalg::Into::kReplace>(team, V_G, s.np, s.mp, V_G, s.np, s.mp, s.np, T,
                                                  s.mp, true);
    if (s.p > 0) linalg::subtract_gram(team, X, s.pp, s.mp, s.pp, T, s.mp);
    auto definite = broadcast_mask<Scalar>(true);
    for (int i = 0; i < s.np; ++i) definite = both(definite, is_finite(factor.inverse_L[i]));
    return definite;
  }

  /// Puts the diagonal blocks together and factors T + diagonal (mask == nullptr), or T on the rows
  /// that `mask` keeps.
  ///
  /// Team: every lane calls; diagonal or mask is visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void refactor(const Team& team, const Scalar* diagonal, const Scalar* mask,
                                double tolerance) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    team.for_each(s.mp, [&](int i) {
      Scalar* row = factor.K + int64_t{s.pp + i} * factor.rows;
      if (mask == nullptr) {
        for (int j = 0; j < i; ++j) row[s.pp + j] = T[i * s.mp + j];
        row[s.pp + i] = T[i * s.mp + i] + diagonal[i];
      } else {
        const auto kept = mask[i] != zero;
        for (int j = 0; j < s.pp; ++j) row[j] = select(kept, X[i * s.pp + j], zero);
        for (int j = 0; j < i; ++j)
          row[s.pp + j] = select(both(kept, mask[j] != zero), T[i * s.mp + j], zero);
        row[s.pp + i] = select(both(kept, T[i * s.mp + i] > zero), T[i * s.mp + i], one);
      }
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, trailing(), factor.rows, s.mp,
                                                  factor.inverse_K + s.pp, tolerance);
  }

  /// The block of K below and right of the equalities.
  TORCHQP_HD Scalar* trailing() const {
    return factor.K + int64_t{shape.pp} * factor.rows + shape.pp;
  }

 private:
  template <class Team>
  TORCHQP_HD void pad_diagonal(const Team& team, Scalar* K, int from, int to) const {
    team.for_each(to - from, [&](int i) {
      K[int64_t{from + i} * factor.rows + from + i] = broadcast<Scalar>(1);
    });
    team.template sync<Site::kDualSetup>();
  }
};

/// The dual form of one solve; see interior_point.hpp for what a Form offers.
template <class Scalar>
struct DualForm {
  const Data<Scalar>& data;
  const Scale<Scalar>& scale;
  Settings settings;
  DualSchur<Scalar> schur;
  Scalar *y0, *d;     ///< [mp] G z at lam = 0; 1 / W
  Scalar *g_c, *d_c;  ///< [pp + mp] equalities, then rows

  TORCHQP_HD DualForm(const Data<Scalar>& problem, const Scale<Scalar>& units,
                      const Settings& choice, Arena<Scalar>& arena)
      : data(problem),
        scale(units),
        settings(choice),
        schur(problem.shape, arena),
        y0(arena.take(problem.shape.mp)),
        d(arena.take(problem.shape.mp)),
        g_c(arena.take(problem.shape.pp + problem.shape.mp)),
        d_c(arena.take(problem.shape.pp + problem.shape.mp)) {}

  /// Schur data, rows scaled to a unit diagonal of T (by powers of two, in data and scale too), y0.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> setup(const Team& team, const Iterate<Scalar>& it) {
    const Shape& s = data.shape;
    const auto definite = schur.setup(team, data);
    team.for_each(s.mp,
                  [&](int i) { d[i] = power_of_two(reciprocal_sqrt(schur.T[i * s.mp + i])); });
    team.template sync<Site::kDualSetup>();
    team.for_each(s.mp, [&](int i) {
      for (int j = 0; j < s.np; ++j) data.G[i * s.np + j] = data.G[i * s.np + j] * d[i];
      for (int j = 0; j < s.mp; ++j) schur.T[i * s.mp + j] = schur.T[i * s.mp + j] * (d[i] * d[j]);
      for (int j = 0; j < s.pp; ++j) schur.X[i * s.pp + j] = schur.X[i * s.pp + j] * d[i];
      data.lower[i] = data.lower[i] * d[i], data.upper[i] = data.upper[i] * d[i];
      scale.row[i] = scale.row[i] * d[i];
    });
    team.template sync<Site::kDualSetup>();
    recover(team, it);  // the multipliers are zero
    linalg::multiply<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, it.z, y0);
    return definite;
  }

  /// z and nu that belong to the multipliers: stationarity and the equalities hold.
  template <class Team>
  TORCHQP_HD_CALL void recover(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    const DualFactor<Scalar>& f = schur.factor;
    net_multipliers(team, s, it);
    constraint_transpose(team, data, it.lam, it.Ctlam);
    team.for_each(s.np, [&](int i) { it.z[i] = data.q[i] + it.Ctlam[i]; });
    team.template sync<Site::kDualSetup>();
    team.for_each(s.np, [&](int i) { it.Qz[i] = it.z[i]; });
    team.template sync<Site::kDualSetup>();
    linalg::solve_cholesky(team, f.L, s.np, s.np, f.inverse_L, it.z);
    linalg::multiply<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, it.z, it.nu);
    team.for_each(s.pp, [&](int i) { it.nu[i] = -(it.nu[i] + data.b[i]); });
    team.template sync<Site::kDualSetup>();
    linalg::solve_cholesky(team, f.K, f.rows, s.pp, f.inverse_K, it.nu);
    linalg::multiply_transposed<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, it.nu,
                                                        it.z);
    team.for_each(s.np, [&](int i) { it.z[i] = -(it.z[i] + it.Qz[i]); });
    team.template sync<Site::kDualSetup>();
    linalg::solve_cholesky(team, f.L, s.np, s.np, f.inverse_L, it.z);
  }

  template <class Team>
  TORCHQP_HD_CALL Progress<Scalar> evaluate(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
    net_multipliers(team, s, it);
    linalg::multiply<linalg::Into::kReplace>(team, schur.T, s.mp, s.mp, s.mp, it.lam, it.y);
    Scalar curvature = zero;
    for (int i = 0; i < s.mp; ++i) curvature = fused(it.lam[i], it.y[i], curvature);
    team.template sync<Site::kResiduals>();
    team.for_each(s.mp, [&](int i) { it.y[i] = y0[i] - it.y[i]; });
    team.template sync<Site::kResiduals>();

    // Stationarity and equalities hold by construction; the gap is what complementarity leaves.
    Residuals<Scalar> r;
    r.stationarity = r.stationarity_reference = r.dual_sign = r.dual_sign_reference = zero;
    r.primal = r.primal_reference = r.gap = zero;
    Scalar support = zero;
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      for (int i = 0; i < s.mp; ++i) {
        const auto exists = side.has[i] > zero;
        const Scalar bound = select(exists, side.bound[i], zero),
                     unscale = reciprocal(scale.row[i]);
        const Scalar slack = select(exists, sign * (bound - it.y[i]), zero);
        r.primal = max_norm(r.primal, maximum(-slack, zero) * unscale);
        r.primal_reference =
            max_norm(max_norm(r.primal_reference, bound * unscale), (bound - slack) * unscale);
        r.gap = fused(slack, side.lam[i], r.gap);
        support = fused(sign * bound, side.lam[i], support);
      }
    });
    if (it.has_equal()) {
      for (int i = 0; i < s.mp; ++i) {
        const auto exists = it.equal[i] > zero;
        const Scalar bound = select(exists, it.upper.bound[i], zero),
                     error = select(exists, it.y[i] - bound, zero);
        const Scalar unscale = reciprocal(scale.row[i]);
        r.primal = max_norm(r.primal, error * unscale);
        r.primal_reference = max_norm(r.primal_reference, bound * unscale);
        r.gap = fnma(error, it.lam_equal[i], r.gap);
        support = fused(bound, it.lam_equal[i], support);
      }
    }
    r.gap = absolute(r.gap);
    r.gap_reference = max_norm(absolute(support), curvature);
    team.template sync<Site::kResiduals>();
    return {r.merit(settings), broadcast_mask<Scalar>(false), broadcast_mask<Scalar>(false)};
  }

  template <class Team>
  TORCHQP_HD_CALL void factor(const Team& team, const Scalar* weight) const {
    const Scalar least = broadcast<Scalar>(sizeof(Element<Scalar>) == 8 ? 1e-30 : 1e-15);
    team.for_each(data.shape.mp, [&](int i) { d[i] = reciprocal(maximum(weight[i], least)); });
    team.template sync<Site::kDualFactor>();
    schur.refactor(team, d, static_cast<const Scalar*>(nullptr), 4.0 * epsilon_v<Scalar>);
  }

  template <class Team>
  TORCHQP_HD_CALL void direction(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    team.for_each(s.mp, [&](int i) { it.dlam[i] = d[i] * it.t[i]; });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, schur.trailing(), schur.factor.rows, s.mp,
                           schur.factor.inverse_K + s.pp, it.dlam);
    team.for_each(s.mp, [&](int i) { it.dy[i] = d[i] * (it.dlam[i] - it.t[i]); });
    team.template sync<Site::kDualSolve>();
  }

  /// Takes the scaling of the rows out of the factor, which then belongs to the caller's G: a form
  /// tried later, for other problems of the pack, scales the rows again.
  template <class Team>
  TORCHQP_HD_CALL void unscale_factor(const Team& team) const {
    const Shape& s = data.shape;
    const DualFactor<Scalar>& f = schur.factor;
    team.for_each(s.mp, [&](int i) {
      const Scalar unscale = reciprocal(scale.row[i]);
      Scalar* row = f.K + int64_t{s.pp + i} * f.rows;
      for (int j = 0; j <= s.pp + i; ++j) row[j] = row[j] * unscale;
    });
    team.template sync<Site::kDualFactor>();
  }

  /// The factor for the sides that hold, it.active.
  template <class Team>
  TORCHQP_HD_CALL void factor_active(const Team& team, const Iterate<Scalar>& it) const {
    schur.refactor(team, static_cast<const Scalar*>(nullptr), it.active, dependent_v<Scalar>);
  }

  /// The Newton step to where the active sides hold with equality: dz, dnu, dlam from r_d, r_p and
  /// y.
  template <class Team>
  TORCHQP_HD_CALL void direction_active(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
    team.for_each(s.pp, [&](int i) { g_c[i] = it.r_p[i]; });
    team.for_each(s.mp, [&](int i) {
      g_c[s.pp + i] = select(it.active[i] != zero, it.y[i] - it.active_bound(i), zero);
    });
    team.template sync<Site::kPolishStep>();
    schur.factor.solve(team, data, it.active, it.r_d, g_c, it.dz, d_c);
    team.for_each(s.pp, [&](int i) { it.dnu[i] = d_c[i]; });
    team.for_each(s.mp, [&](int i) { it.dlam[i] = d_c[s.pp + i]; });
    team.template sync<Site::kPolishStep>();
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
