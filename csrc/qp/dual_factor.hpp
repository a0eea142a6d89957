#pragma once
// The linear algebra of the dual form: the factors of Q and of the Schur complement of the
// equalities and the rows that hold, which solve the KKT system of an active set.

#include "linalg/cholesky.hpp"
#include "linalg/products.hpp"
#include "linalg/triangular.hpp"
#include "qp/active_rows.hpp"
#include "qp/check_data.hpp"

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
        L(arena.take(int64_t{s.np} * s.np, Heat::kSetup)),
        inverse_L(arena.take(s.np)),
        K(arena.take(int64_t{s.pp + s.mp} * (s.pp + s.mp), Heat::kFactor)),
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
  /// Team: every lane calls and sees its own entries of active, g_z and g_c on entry; ends with a
  /// sync.
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
        V(arena.take(int64_t{s.pp + s.mp} * s.np, Heat::kSetup)),
        X(arena.take(int64_t{s.mp} * s.pp, Heat::kSetup)),
        T(arena.take(int64_t{s.mp} * s.mp, Heat::kSystem)) {}

  /// L = Q and V = A: what factor_equalities works on. Team: shared out; ends without a sync.
  template <class Team>
  TORCHQP_HD void take_equalities(const Team& team, const Data<Scalar>& data) const {
    team.for_each(shape.np * shape.np, [&](int i) { factor.L[i] = data.Q[i]; });
    team.for_each(shape.pp * shape.np, [&](int i) { V[i] = data.A[i]; });
  }

  /// G below A in V: what form works on. Team: shared out; ends without a sync.
  template <class Team>
  TORCHQP_HD void take_rows(const Team& team, const Data<Scalar>& data) const {
    Scalar* V_G = V + int64_t{shape.pp} * shape.np;
    team.for_each(shape.mp * shape.np, [&](int i) { V_G[i] = data.G[i]; });
  }

  /// Factors Q and A Q^-1 A'. Returns where Q is safely positive definite.
  ///
  /// Team: every lane calls; the data are visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> factor_equalities(const Team& team,
                                                   const Data<Scalar>& data) const {
    const Shape& s = shape;
    take_equalities(team, data);
    team.template sync<Site::kDualSetup>();
    linalg::factor_cholesky<linalg::Pivot::kRequire>(team, factor.L, s.np, s.np, factor.inverse_L,
                                                     definite_v<Scalar>);
    if (s.p > 0) {
      linalg::solve_lower_rows(team, factor.L, s.np, s.np, factor.inverse_L, V, s.np, s.pp);
      linalg::multiply_rows<linalg::Into::kReplace>(team, V, s.np, s.pp, V, s.np, s.pp, s.np,
                                                    factor.K, factor.rows, true);
      factor_coupling(team);
    }
    Scalar sum[1] = {detail::unless_finite(team, factor.inverse_L, s.np)};
    team.template max_all<Site::kDualSetup>(sum);
    return sum[0] == broadcast<Scalar>(0);
  }

  /// Factors A Q^-1 A', which stands in K; rows that depend on those before them are dropped.
  ///
  /// Team: every lane calls; K is visible to all on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_coupling(const Team& team) const {
    const Shape& s = shape;
    team.for_each(s.pp - s.p, [&](int i) {
      factor.K[int64_t{s.p + i} * (factor.rows + 1)] = broadcast<Scalar>(1);
    });
    team.template sync<Site::kDualSetup>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, factor.K, factor.rows, s.pp,
                                                  factor.inverse_K, dependent_v<Scalar>);
  }

  /// Forms X and T from the factors of Q and A Q^-1 A'.
  ///
  /// Team: every lane calls; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void form(const Team& team, const Data<Scalar>& data) const {
    const Shape& s = shape;
    take_rows(team, data);
    team.template sync<Site::kDualSetup>();
    project(team, s.mp, X, s.pp, T, s.mp);
  }

  /// Lists the rows with active != 0 and factors the system on them from the data, without T: the
  /// bits are those of factor_held and couple_held.
  ///
  /// Team: every lane calls and sees its own entries of active on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_rows(const Team& team, const Data<Scalar>& data,
                                   const Scalar* active) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    const ActiveRows<Scalar>& held = factor.held;
    held.list(team, active, s.m, s.mp);
    const int length = held.template longest<Team>();
    Scalar* V_G = V + int64_t{s.pp} * s.np;
    for_each_row(team, length, [&](int r, int first, int step) {
      const Scalar i = held.row[r];
      const auto listed = held.has(r);
      Scalar* row = V_G + int64_t{r} * s.np;
      TORCHQP_ROLLED
      for (int j = first; j < s.np; j += step)
        row[j] = select(listed, gather(data.G, i, s.np, broadcast<Scalar>(j)), zero);
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
    for_each_row(team, s.mp, [&](int i, int first, int step) {
      const Scalar* from = T + i * s.mp;
      Scalar* row = K + int64_t{i} * factor.rows;
      int j = first;
      TORCHQP_ROLLED
      for (; j < i; j += step) row[j] = from[j];
      if (j == i) row[i] = from[i] + d[i];
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, K, factor.rows, s.mp,
                                                  factor.inverse_K + s.pp, 4.0 * epsilon_v<Scalar>);
  }

  /// Lists the rows with active != 0 and factors T on them; rows that depend on those before them
  /// are dropped.
  ///
  /// Team: every lane calls and sees its own entries of active on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void factor_held(const Team& team, const Scalar* active) const {
    const Shape& s = shape;
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    const ActiveRows<Scalar>& held = factor.held;
    held.list(team, active, s.m, s.mp);
    const int length = held.template longest<Team>();
    Scalar* K = trailing();
    for_each_row(team, length, [&](int r, int first, int step) {
      Scalar* row = K + int64_t{r} * factor.rows;
      const auto listed = held.has(r);
      const Scalar i = held.row[r];
      int c = first;
      TORCHQP_ROLLED
      for (; c < r; c += step) row[c] = select(listed, gather(T, i, s.mp, held.row[c]), zero);
      if (c == r) row[r] = select(listed, gather(T, i, s.mp, i), one);
    });
    team.template sync<Site::kDualFactor>();
    linalg::factor_cholesky<linalg::Pivot::kDrop>(team, K, factor.rows, length,
                                                  factor.inverse_K + s.pp, dependent_v<Scalar>);
  }

  /// Writes the held rows' part against the equalities, which completes K.
  ///
  /// Team: every lane calls; ends without a sync: DualFactor::solve has one before it reads K, and
  /// for_each_row gives a lane what it wrote.
  template <class Team>
  TORCHQP_HD_CALL void couple_held(const Team& team) const {
    const Shape& s = shape;
    const ActiveRows<Scalar>& held = factor.held;
    const Scalar zero = broadcast<Scalar>(0);
    if (s.pp == 0) return;
    for_each_row(team, held.template longest<Team>(), [&](int r, int first, int step) {
      Scalar* row = factor.K + int64_t{s.pp + r} * factor.rows;
      const auto listed = held.has(r);
      const Scalar i = held.row[r];
      TORCHQP_ROLLED
      for (int j = first; j < s.pp; j += step)
        row[j] = select(listed, gather(X, i, s.pp, broadcast<Scalar>(j)), zero);
    });
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
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
