#pragma once
// What the forms that iterate on z itself have in common: residuals, certificates, weights of an
// active set.

#include "qp/interior_point.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// rho, relative to data of size one.
template <class Scalar>
inline constexpr double regularisation_v = sizeof(Element<Scalar>) == 8 ? 1e-10 : 1e-6;
/// Added to S, relative to its diagonal: dependent equalities get finite multipliers if they agree
/// and, if not, multipliers that grow along the combination which proves it.
template <class Scalar>
inline constexpr double equality_shift_v = sizeof(Element<Scalar>) == 8 ? 1e-12 : 1e-5;
/// Exactness asked of a certificate: it excludes solutions (or multipliers) up to 1 / this in size.
template <class Scalar>
inline constexpr double certificate_v = sizeof(Element<Scalar>) == 8 ? 1e-9 : 1e-5;

/// Derived offers factor and direction (see interior_point.hpp) and sets `weight` in factor.
template <class Derived, class Scalar>
struct PrimalForm {
  const Data<Scalar>& data;
  const Scale<Scalar>& scale;
  Settings settings;
  Scalar* weight;  ///< [k] of the current factor

  TORCHQP_HD PrimalForm(const Data<Scalar>& problem, const Scale<Scalar>& units,
                        const Settings& choice, Arena<Scalar>& arena)
      : data(problem), scale(units), settings(choice), weight(arena.take(problem.shape.k)) {}

  template <class Team>
  TORCHQP_HD_CALL Progress<Scalar> evaluate(const Team& team, const Iterate<Scalar>& it) const {
    const Residuals<Scalar> r = kkt_residuals(team, data, scale, it);
    return {r.merit(settings), proves_primal_infeasible(r),
            proves_dual_infeasible(team, it, r.slope)};
  }

  /// The iterate carries z and nu itself.
  template <class Team>
  TORCHQP_HD void recover(const Team&, const Iterate<Scalar>&) const {}

  /// A'nu + C'lam = 0 with a negative support value: every feasible z would give 0 <= support.
  TORCHQP_HD MaskOf<Scalar> proves_primal_infeasible(const Residuals<Scalar>& r) const {
    return both(r.support < broadcast<Scalar>(0),
                r.multiplier_image <= broadcast<Scalar>(-certificate_v<Scalar>) * r.support);
  }

  /// Qz = 0, Az = 0, Cz recedes from every bound and q'z < 0: the objective falls for ever along z.
  template <class Team>
  TORCHQP_HD_CALL MaskOf<Scalar> proves_dual_infeasible(const Team& team, const Iterate<Scalar>& it,
                                                        Scalar slope) const {
    const Shape& s = data.shape;
    const Scalar zero = broadcast<Scalar>(0);
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
    return both(slope < zero, error <= broadcast<Scalar>(-certificate_v<Scalar>) * slope);
  }

  /// it.weight for the sides that hold, it.active: stiff on them, none elsewhere. Each lane writes
  /// its own entries.
  template <class Team>
  TORCHQP_HD void weigh_active(const Team& team, const Iterate<Scalar>& it) const {
    const Scalar zero = broadcast<Scalar>(0), stiff = broadcast<Scalar>(stiffness_v<Scalar>);
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
