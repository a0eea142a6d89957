#pragma once
// The dual (Schur) form: Q positive definite, rows only. With equalities projected out,
//
//   s = d + T lam,   T = G P G',   P = Q^-1 - Q^-1 A' (A Q^-1 A')^-1 A Q^-1,
//
// so that after one setup an iteration works on m-dimensional data alone: one Cholesky of T + W^-1
// and two solves.

#include "qp/dual_factor.hpp"
#include "qp/interior_point.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The dual form of one solve; see interior_point.hpp for what a Form offers.
template <class Scalar>
struct DualForm {
  /// Steps are not damped: T + diag(s / lam) is well conditioned where the weights lam / s are large.
  static constexpr bool kDamped = false;
  static constexpr double stiffness = stiffness_v<Scalar>;
  TORCHQP_HD static Scalar give(Scalar) { return broadcast<Scalar>(0); }
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
    scale_rows(team);
    return schur.factor_equalities(team, data);
  }

  /// The scaling of the rows alone. Team: every lane calls; a lane sees its own entries of the data on
  /// entry, and of Q's diagonal those that for_each gives it; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void scale_rows(const Team& team) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
    Scalar curvature[1] = {zero};
    team.for_each(s.n,
                  [&](int i) { curvature[0] = max_norm(curvature[0], data.Q[i * (s.np + 1)]); });
    team.template max_all<Site::kDualSetup>(curvature);
    const Scalar size = square_root(curvature[0]);
    team.for_each(s.mp, [&](int i) {
      const Scalar* row = data.G + int64_t{i} * s.np;
      // The largest entry, four at a time because each maximum waits for the last.
      Scalar largest[4] = {zero, zero, zero, zero};
      int j = 0;
      TORCHQP_ROLLED
      for (; j + 4 <= s.np; j += 4) {
        TORCHQP_UNROLL
        for (int c = 0; c < 4; ++c) largest[c] = max_norm(largest[c], row[j + c]);
      }
      TORCHQP_ROLLED
      for (; j < s.np; ++j) largest[0] = max_norm(largest[0], row[j]);
      const Scalar norm =
          max_norm(max_norm(largest[0], largest[1]), max_norm(largest[2], largest[3]));
      scale.row[i] =
          minimum(power_of_two(size / norm), broadcast<Scalar>(largest_row_factor_v<Scalar>));
    });
    team.template sync<Site::kDualSetup>();
    for_each_row(team, s.mp, [&](int i, int first, int step) {
      Scalar* row = data.G + int64_t{i} * s.np;
      const Scalar by = scale.row[i];
      TORCHQP_ROLLED
      for (int j = first; j < s.np; j += step) row[j] = row[j] * by;
    });
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
    team.for_each(s.np, [&](int i) { it.z[i] = it.Qz[i] = data.q[i] + it.Ctlam[i]; });
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
    linalg::multiply_symmetric(team, schur.T, s.mp, s.mp, it.lam, it.y);
    Scalar sums[3];
    team.template sums<Site::kResiduals>(s.mp, sums, [&](int i, Scalar(&sum)[3]) {
      sum[0] = fused(it.lam[i], it.y[i], sum[0]);
      const Scalar y = y0[i] - it.y[i];
      it.for_each_side([&](const Side<Scalar>& side) {
        const auto exists = side.has[i] > zero;
        const Scalar bound = select(exists, side.bound[i], zero);
        const Scalar slack = select(exists, broadcast<Scalar>(side.sign) * (bound - y), zero);
        sum[1] = fused(slack, side.lam[i], sum[1]);
      });
      if (it.has_equal()) {
        const Scalar error = select(it.equal[i] > zero, y - it.upper.bound[i], zero);
        sum[1] = fnma(error, it.lam_equal[i], sum[1]);
      }
      sum[2] = add_support(it, i, sum[2]);
    });
    const Scalar curvature = sums[0], gap = sums[1], support = sums[2];
    Scalar norms[2] = {zero, zero};
    Scalar &primal = norms[0], &primal_reference = norms[1];
    team.for_each(s.mp, [&](int i) {
      const Scalar y = y0[i] - it.y[i], unscale = reciprocal(scale.row[i]);
      it.y[i] = y;
      it.for_each_side([&](const Side<Scalar>& side) {
        const auto exists = side.has[i] > zero;
        const Scalar bound = select(exists, side.bound[i], zero);
        const Scalar slack = select(exists, broadcast<Scalar>(side.sign) * (bound - y), zero);
        primal = max_norm(primal, maximum(-slack, zero) * unscale);
        primal_reference =
            max_norm(max_norm(primal_reference, bound * unscale), (bound - slack) * unscale);
      });
      if (it.has_equal()) {
        const auto exists = it.equal[i] > zero;
        const Scalar bound = select(exists, it.upper.bound[i], zero);
        primal = max_norm(primal, select(exists, y - bound, zero) * unscale);
        primal_reference = max_norm(primal_reference, bound * unscale);
      }
    });
    team.template max_all<Site::kResiduals>(norms);

    // Stationarity and equalities hold by construction; the gap is what complementarity leaves.
    Residuals<Scalar> r;
    r.stationarity = r.stationarity_reference = r.dual_sign = r.dual_sign_reference = zero;
    r.primal = primal, r.primal_reference = primal_reference;
    r.gap = absolute(gap);
    r.gap_reference = max_norm(absolute(support), curvature);
    const Scalar never = broadcast<Scalar>(std::numeric_limits<double>::infinity());
    return {r.merit(settings), never, broadcast_mask<Scalar>(false), broadcast_mask<Scalar>(false)};
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
  }

  /// Takes the scaling of the rows out of the factor, which then belongs to the caller's G: a form
  /// tried later, for other problems of the pack, scales the rows again.
  ///
  /// Team: every lane calls; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void unscale_factor(const Team& team) const {
    const Shape& s = data.shape;
    const DualFactor<Scalar>& f = schur.factor;
    for_each_row(team, f.held.template longest<Team>(), [&](int r, int first, int step) {
      const Scalar unscale =
          reciprocal(select(f.held.has(r), gather(scale.row, f.held.row[r]), broadcast<Scalar>(1)));
      Scalar* row = f.K + int64_t{s.pp + r} * f.rows;
      TORCHQP_ROLLED
      for (int j = first; j <= s.pp + r; j += step) row[j] = row[j] * unscale;
    });
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
    schur.factor.solve(team, data, it.active, it.r_d, g_c, it.dz, d_c);
    team.for_each(s.pp, [&](int i) { it.dnu[i] = d_c[i]; });
    team.for_each(s.mp, [&](int i) { it.dlam[i] = d_c[s.pp + i]; });
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
