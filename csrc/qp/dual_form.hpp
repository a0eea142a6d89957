#pragma once
// The dual (Schur) form: Q positive definite, rows only. With equalities projected out,
//
//   s = d + T lam,   T = G P G',   P = Q^-1 - Q^-1 A' (A Q^-1 A')^-1 A Q^-1,
//
// so that after one setup an iteration works on m-dimensional data alone: one Cholesky of T + W^-1
// and two solves.

#include "linalg/cholesky.hpp"
#include "linalg/triangular.hpp"
#include "qp/active_rows.hpp"
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

/// Factor of the KKT matrix of Q with the rows C = (A, rows of G that hold):
///   Q = L L',   C Q^-1 C' = K K',   K = [ chol(A Q^-1 A')  0 ; X_held  chol(T_held) ].
/// The rows that hold come one after the other, in the order of `held`.
template <class Scalar>
struct DualFactor {
  Shape shape;
  int rows;                 ///< pp + mp
  Scalar *L, *inverse_L;    ///< [np, np] [np]
  Scalar *K, *inverse_K;    ///< [rows, rows] [rows]
  Scalar *work_z, *work_c;  ///< [np] [rows]
  ActiveRows<Scalar> held;  ///< the rows of G in K

  TORCHQP_HD DualFactor(const Shape& s, Arena<Scalar>& arena)
      : shape(s),
        rows(s.pp + s.mp),
        L(arena.take(int64_t{s.np} * s.np)),
        inverse_L(arena.take(s.np)),
        K(arena.take(int64_t{s.pp + s.mp} * (s.pp + s.mp))),
        inverse_K(arena.take(s.pp + s.mp)),
        work_z(arena.take(s.np)),
        work_c(arena.take(s.pp + s.mp)),
        held(s.mp, arena) {}

  /// d = -[Q C'; C 0]^-1 g by this factor, where C = (A, the rows of G that hold).
  ///
  ///   in   active    [mp]           nonzero where a row is in `held`
  ///   in   g_z, g_c  [np], [rows]
  ///   out  d_z, d_c  [np], [rows]   zero on rows that do not hold
  ///
  /// Team: every lane calls; inputs are visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void solve(const Team& team, const Data<Scalar>& data, const Scalar* active,
                             const Scalar* g_z, const Scalar* g_c, Scalar* d_z, Scalar* d_c) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0);
    const int length = held.template longest<Team>();
    team.for_each(s.np, [&](int i) { work_z[i] = g_z[i]; });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, L, s.np, s.np, inverse_L, work_z);
    linalg::multiply<linalg::Into::kReplace>(team, data.A, s.np, s.pp, s.np, work_z, d_c);
    linalg::multiply<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, work_z, d_c + s.pp);
    team.for_each(s.pp, [&](int i) { work_c[i] = g_c[i] - d_c[i]; });
    team.for_each(length, [&](int r) {
      const Scalar i = held.row[r];
      work_c[s.pp + r] = select(held.has(r), gather(g_c + s.pp, i) - gather(d_c + s.pp, i), zero);
    });
    team.template sync<Site::kDualSolve>();
    linalg::solve_cholesky(team, K, rows, s.pp + length, inverse_K, work_c);
    team.for_each(s.pp, [&](int i) { d_c[i] = work_c[i]; });
    team.for_each(s.mp, [&](int i) {
      d_c[s.pp + i] = select(active[i] != zero, gather(work_c + s.pp, held.place[i]), zero);
    });
    team.template sync<Site::kDualSolve>();
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
  Scalar* V;  ///< [pp + mp, np] rows of L^-1 A', then of L^-1 G' or of its rows that hold
  Scalar* X;  ///< [mp, pp]
  Scalar* T;  ///< [mp, mp] symmetric

  TORCHQP_HD DualSchur(const Shape& s, Arena<Scalar>& arena)
      : shape(s),
        factor(s, arena),
        V(arena.take(int64_t{s.pp + s.mp} * s.np)),
        X(arena.take(int64_t{s.mp} * s.pp)),
        T(arena.take(int64_t{s.mp} * s.mp)) {}

  /// Factors Q and A Q^-1 A'. Returns where Q is safely positive definite.
  ///
  /// Team: every lane calls; the data are visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> factor_equalities(const Team& team,
                                                   const Data<Scalar>& data) const {
    const Shape& s = shape;
    team.for_each(s.np * s.np, [&](int i) { factor.L[i] = data.Q[i]; });
    team.for_each(s.pp * s.np, [&](int i) { V[i] = data.A[i]; });
    team.template sync<Site::kDualSetup>();
    linalg::factor_cholesky<linalg::Pivot::kRequire>(team, factor.L, s.np, s.np, factor.inverse_L,
                                                     definite_v<Scalar>);
    if (s.p > 0) {
      linalg::solve_lower_rows(team, factor.L, s.np, s.np, factor.inverse_L, V, s.np, s.pp);
      linalg::multiply_rows<linalg::Into::kReplace>(team, V, s.np, s.pp, V, s.np, s.pp, s.np,
                                                    factor.K, factor.rows, true);
      pad_diagonal(team, factor.K, s.p, s.pp);
      linalg::factor_cholesky<linalg::Pivot::kDrop>(team, factor.K, factor.rows, s.pp,
                                                    factor.inverse_K, dependent_v<Scalar>);
    }
    auto definite = broadcast_mask<Scalar>(true);
    for (int i = 0; i < s.np; ++i) definite = both(definite, is_finite(factor.inverse_L[i]));
    return definite;
  }

  /// Forms X and T from the factors of Q and A Q^-1 A'.
  ///
  /// Team: every lane calls; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void form(const Team& team, const Data<Scalar>& data) const {
    const Shape& s = shape;
    Scalar* V_G = V + int64_t{s.pp} * s.np;
    team.for_each(s.mp * s.np, [&](int i) { V_G[i] = data.G[i]; });
    team.template sync<Site::kDualSetup>();
    project(team, s.mp, X, s.pp, T, s.mp);
  }

  /// Lists the rows with active != 0 and factors the system on them from the data, without T: the
  /// bits are those of factor_held and couple_held.
  ///
  /// Team: every lane calls; active is visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_rows(const Team& team, const Data<Scalar>& data,
                                   const Scalar* active) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    const ActiveRows<Scalar>& held = factor.held;
    held.list(team, active, s.m, s.mp);
    const int length = held.template longest<Team>();
    Scalar* V_G = V + int64_t{s.pp} * s.np;
    team.for_each(length, [&](int r) {
      const Scalar i = held.row[r];
      const auto listed = held.has(r);
      for (int j = 0; j < s.np; ++j) {
        V_G[int64_t{r} * s.np + j] =
            select(listed, gather(data.G, i, s.np, broadcast<Scalar>(j)), zero);
      }
    });
    team.template sync<Site::kDualSetup>();
    Scalar* K = trailing();
    project(team, length, K - s.pp, factor.rows, K, factor.rows);
    team.for_each(length, [&](int r) {
      Scalar& pivot = K[int64_t{r} * (factor.rows + 1)];
      pivot = select(held.has(r), pivot, one);
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, K, factor.rows, length,
                                                  factor.inverse_K + s.pp, dependent_v<Scalar>);
  }

  /// Factors T + diag(d), all rows.
  ///
  /// Team: every lane calls; d is visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_shifted(const Team& team, const Scalar* d) const {
    const Shape& s = shape;
    Scalar* K = trailing();
    team.for_each(s.mp, [&](int i) {
      for (int j = 0; j < i; ++j) K[int64_t{i} * factor.rows + j] = T[i * s.mp + j];
      K[int64_t{i} * factor.rows + i] = T[i * s.mp + i] + d[i];
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, K, factor.rows, s.mp,
                                                  factor.inverse_K + s.pp, 4.0 * epsilon_v<Scalar>);
  }

  /// Lists the rows with active != 0 and factors T on them; rows that depend on those before them
  /// are dropped.
  ///
  /// Team: every lane calls; active is visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_held(const Team& team, const Scalar* active) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    const ActiveRows<Scalar>& held = factor.held;
    held.list(team, active, s.m, s.mp);
    const int length = held.template longest<Team>();
    Scalar* K = trailing();
    team.for_each(length, [&](int r) {
      Scalar* row = K + int64_t{r} * factor.rows;
      const auto listed = held.has(r);
      const Scalar i = held.row[r];
      for (int c = 0; c < r; ++c) row[c] = select(listed, gather(T, i, s.mp, held.row[c]), zero);
      row[r] = select(listed, gather(T, i, s.mp, i), one);
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, K, factor.rows, length,
                                                  factor.inverse_K + s.pp, dependent_v<Scalar>);
  }

  /// Writes the held rows' part against the equalities, which completes K.
  ///
  /// Team: every lane calls; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void couple_held(const Team& team) const {
    const Shape& s = shape;
    const ActiveRows<Scalar>& held = factor.held;
    const Scalar zero = broadcast<Scalar>(0);
    if (s.pp == 0) return;
    team.for_each(held.template longest<Team>(), [&](int r) {
      Scalar* row = factor.K + int64_t{s.pp + r} * factor.rows;
      for (int j = 0; j < s.pp; ++j) {
        row[j] = select(held.has(r), gather(X, held.row[r], s.pp, broadcast<Scalar>(j)), zero);
      }
    });
    team.template sync<Site::kDualFactor>();
  }

  /// The block of K below and right of the equalities.
  TORCHQP_HD Scalar* trailing() const {
    return factor.K + int64_t{shape.pp} * factor.rows + shape.pp;
  }

 private:
  /// From `rows` rows of G in V: what the equalities leave of them, P = V V' - X X'.
  template <class Team>
  TORCHQP_HD_CALL void project(const Team& team, int rows, Scalar* X_to, int X_stride, Scalar* P,
                               int P_stride) const {
    const Shape& s = shape;
    Scalar* V_G = V + int64_t{s.pp} * s.np;
    linalg::solve_lower_rows(team, factor.L, s.np, s.np, factor.inverse_L, V_G, s.np, rows);
    linalg::multiply_rows<linalg::Into::kReplace>(team, V_G, s.np, rows, V_G, s.np, rows, s.np, P,
                                                  P_stride, true);
    if (s.p == 0) return;
    linalg::multiply_rows<linalg::Into::kReplace>(team, V_G, s.np, rows, V, s.np, s.pp, s.np, X_to,
                                                  X_stride, false);
    linalg::solve_lower_rows(team, factor.K, factor.rows, s.pp, factor.inverse_K, X_to, X_stride,
                             rows);
    linalg::subtract_gram(team, X_to, X_stride, rows, s.pp, P, P_stride);
  }

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

  /// What depends on Q, G and A alone, but for T: the factors of Q and A Q^-1 A', and rows scaled
  /// (by powers of two, in scale too) so that T has a diagonal of about one and above. Returns where
  /// Q is safely positive definite.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> setup(const Team& team) const {
    const Shape& s = data.shape;
    Scalar curvature = broadcast<Scalar>(0);
    for (int i = 0; i < s.n; ++i) curvature = max_norm(curvature, data.Q[i * (s.np + 1)]);
    const Scalar size = square_root(curvature);
    team.for_each(s.mp, [&](int i) {
      Scalar* row = data.G + int64_t{i} * s.np;
      Scalar largest = broadcast<Scalar>(0);
      for (int j = 0; j < s.np; ++j) largest = max_norm(largest, row[j]);
      const Scalar by = power_of_two(size / largest);
      for (int j = 0; j < s.np; ++j) row[j] = row[j] * by;
      scale.row[i] = by;
    });
    team.template sync<Site::kDualSetup>();
    return schur.factor_equalities(team, data);
  }

  /// The sides in the units of the scaled rows.
  template <class Team>
  TORCHQP_HD_CALL void scale_sides(const Team& team) const {
    team.for_each(data.shape.mp, [&](int i) {
      data.lower[i] = data.lower[i] * scale.row[i], data.upper[i] = data.upper[i] * scale.row[i];
    });
    team.template sync<Site::kDualSetup>();
  }

  /// y0; the multipliers must be zero.
  template <class Team>
  TORCHQP_HD_CALL void start(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    recover(team, it);
    linalg::multiply<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, it.z, y0);
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
    schur.factor_shifted(team, d);
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
    team.for_each(f.held.template longest<Team>(), [&](int r) {
      const Scalar unscale =
          reciprocal(select(f.held.has(r), gather(scale.row, f.held.row[r]), broadcast<Scalar>(1)));
      Scalar* row = f.K + int64_t{s.pp + r} * f.rows;
      for (int j = 0; j <= s.pp + r; ++j) row[j] = row[j] * unscale;
    });
    team.template sync<Site::kDualFactor>();
  }

  /// The factor for the sides that hold, it.active.
  template <class Team>
  TORCHQP_HD_CALL void factor_active(const Team& team, const Iterate<Scalar>& it) const {
    schur.factor_held(team, it.active);
    schur.couple_held(team);
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
