#pragma once
// What the forms that iterate on z itself have in common: residuals, certificates, weights of an
// active set.
//
// With `soft` they solve another problem on the same constraints, whose matrix Q and vector q the
// caller has set to zero: the constraints may be missed by their own multipliers,
//
//   min 1/2 nu'nu + 1/2 lam'lam   s.t.   Az - nu = b,   lower + lam <= Cz <= upper + lam,
//
// (a lower side by the negative part of lam, an upper one by the positive), so that half the squared
// distance of (b, [lower, upper]) from the range of (A, C) is minimised. It always has a solution,
// and where the distance is not zero, that is a certificate: A'nu + C'lam = 0 and
// b'nu + sup lam'y = -nu'nu - lam'lam < 0.

#include "qp/interior_point.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// rho, relative to data of size one.
template <class Scalar>
inline constexpr double regularisation_v = sizeof(Element<Scalar>) == 8 ? 1e-10 : 3e-7;
/// delta of interior_point.hpp, in scaled units: weights stay below 1 / delta. Of the published
/// problems tried, 1e-8 to 1e-11 solve all in double precision, and 0 leaves four linear programs
/// unsolved. In single precision larger weights drown what is beside them: 5e-7, with rho and the
/// equalities' shift of 3e-7, is among the best of the values tried from 1e-8 to 1e-5.
template <class Scalar>
inline constexpr double damping_v = sizeof(Element<Scalar>) == 8 ? 1e-10 : 5e-7;
/// Added to S, relative to its diagonal: dependent equalities get finite multipliers if they agree
/// and, if not, multipliers that grow along the combination which proves it.
template <class Scalar>
inline constexpr double equality_shift_v = sizeof(Element<Scalar>) == 8 ? 1e-12 : 3e-7;
/// Exactness asked of a certificate: it excludes solutions (or multipliers) up to 1 / this in size.
template <class Scalar>
inline constexpr double certificate_v = sizeof(Element<Scalar>) == 8 ? 1e-9 : 1e-5;
/// The same of one from the soft problem, which only problems without a solution in sight are put
/// to: a contradiction of 1e-9 has multipliers of 1e9, whose last bits are 1e-7.
template <class Scalar>
inline constexpr double soft_certificate_v = sizeof(Element<Scalar>) == 8 ? 9e-7 : 1e-4;
/// A sum whose size is less than this share of its terms' is rounding.
template <class Scalar>
inline constexpr double cancelled_v = 64.0 * epsilon_v<Scalar>;

/// Derived offers factor and direction (see interior_point.hpp) and sets `weight` in factor.
template <class Derived, class Scalar>
struct PrimalForm {
  static constexpr bool kDamped = true;
  const Data<Scalar>& data;
  const Scale<Scalar>& scale;
  Settings settings;
  bool soft = false;
  double damping = damping_v<Scalar>, stiffness = stiffness_v<Scalar>;
  Scalar* weight;  ///< [k] of the current factor

  TORCHQP_HD PrimalForm(const Data<Scalar>& problem, const Scale<Scalar>& units,
                        const Settings& choice, Arena<Scalar>& arena)
      : data(problem), scale(units), settings(choice), weight(arena.take(problem.shape.k)) {}

  template <class Team>
  TORCHQP_HD_CALL Progress<Scalar> evaluate(const Team& team, const Iterate<Scalar>& it) const {
    const Shape& s = data.shape;
    const Residuals<Scalar> r = kkt_residuals(team, data, scale, it);
    const Progress<Scalar> progress{
        r.merit(settings),
        fused(broadcast<Scalar>(settings.eps_rel), r.gap_reference,
              broadcast<Scalar>(settings.eps_abs)) *
            scale.cost[0],
        proves_primal_infeasible(r),
        soft ? broadcast_mask<Scalar>(false) : proves_dual_infeasible(team, it, r)};
    if (soft) {
      team.for_each(s.pp, [&](int i) { it.r_p[i] = it.r_p[i] - it.nu[i]; });
    }
    return progress;
  }

  /// By how much a side may be missed.
  TORCHQP_HD Scalar give(Scalar lam) const { return soft ? lam : broadcast<Scalar>(0); }

  /// To the soft problem or back. What depends on Q is to be formed anew. One lane calls, all see it
  /// after a sync.
  TORCHQP_HD void set_soft(bool on) {
    soft = on;
    damping = on ? 1.0 : damping_v<Scalar>;
    stiffness = on ? 1.0 : stiffness_v<Scalar>;
  }

  /// The iterate carries z and nu itself.
  template <class Team>
  TORCHQP_HD void recover(const Team&, const Iterate<Scalar>&) const {}

  /// A'nu + C'lam = 0 with a negative support value: every feasible z would give 0 <= support.
  TORCHQP_HD MaskOf<Scalar> proves_primal_infeasible(const Residuals<Scalar>& r) const {
    const double error = soft ? soft_certificate_v<Scalar> : certificate_v<Scalar>;
    const auto negative =
        both(is_finite(r.support),
             r.support < broadcast<Scalar>(-cancelled_v<Scalar>) * r.support_reference);
    return both(negative, r.multiplier_image <= broadcast<Scalar>(-error) * r.support);
  }

  /// Qz = 0, Az = 0, Cz recedes from every bound and q'z < 0: the objective falls for ever along z.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> proves_dual_infeasible(const Team& team, const Iterate<Scalar>& it,
                                                        const Residuals<Scalar>& r) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
    // In the units of the solver: the caller's say nothing of how the objective is scaled.
    const Scalar slope = r.slope * scale.cost[0];
    Scalar norms[1] = {zero};
    Scalar& error = norms[0];
    team.for_each(s.np, [&](int i) { error = max_norm(error, it.Qz[i]); });
    team.for_each(s.pp, [&](int i) { error = max_norm(error, it.r_p[i] + data.b[i]); });
    it.for_each_side([&](const Side<Scalar>& side) {
      team.for_each(s.k, [&](int i) {
        const auto exists = either(side.has[i] > zero, it.equal[i] > zero);
        error = max_norm(
            error, select(exists, maximum(broadcast<Scalar>(side.sign) * it.y[i], zero), zero));
      });
    });
    team.template max_all<Site::kCertificate>(norms);
    const auto negative = both(is_finite(slope), slope < zero);
    return both(negative, error <= broadcast<Scalar>(-certificate_v<Scalar>) * slope);
  }

  /// it.weight for the sides that hold, it.active: stiff on them, none elsewhere. Each lane writes
  /// its own entries.
  template <class Team>
  TORCHQP_HD void weigh_active(const Team& team, const Iterate<Scalar>& it) const {
    const Scalar zero = broadcast<Scalar>(0), stiff = broadcast<Scalar>(stiffness);
    team.for_each(data.shape.k,
                  [&](int i) { it.weight[i] = select(it.active[i] != zero, stiff, zero); });
  }

  /// The factor for the sides that hold, it.active.
  template <class Team>
  TORCHQP_HD_CALL void factor_active(const Team& team, const Iterate<Scalar>& it) const {
    weigh_active(team, it);
    derived().factor(team, it.weight);
  }

  /// A step to where the sides that hold are met: dz, dnu, dlam from r_d, r_p and y. The error that
  /// finite weights leave shrinks by their inverse with every step.
  template <class Team>
  TORCHQP_HD_CALL void direction_active(const Team& team, const Iterate<Scalar>& it) const {
    const Scalar zero = broadcast<Scalar>(0);
    team.for_each(data.shape.k, [&](int i) {
      it.t[i] = weight[i] * select(it.active[i] != zero, it.y[i] - it.active_bound(i), zero);
    });
    team.template sync<Site::kPolishStep>();
    derived().direction(team, it);
  }

 private:
  TORCHQP_HD const Derived& derived() const { return static_cast<const Derived&>(*this); }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
