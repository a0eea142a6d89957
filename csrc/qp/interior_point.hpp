#pragma once
// Mehrotra's predictor-corrector, written once over the form of the linear algebra.
//
// A Form knows the problem and offers, all called by every lane. They end with a sync where nothing
// else is said.
//   evaluate(team, it)          fills it.y, it.r_d, it.r_p; returns Progress. A lane needs to see
//                               its own entries of the iterate, and sees those of what is filled
//   factor(team, weight)        factors the system below for the weights W [k]; a lane needs to
//                               see its own entries of them. Of a damped form with a third argument,
//                               `raise`: whether to keep pivots that rounding would make vanish
//   direction(team, it)         from it.t, it.r_d, it.r_p: dz, dnu, dlam, dy with
//                                 Q dz + A'dnu + C'dlam = -r_d,   A dz = -r_p,
//                                 dlam = t + W dy,   dy = C dz
//                               it.t is visible to all on entry and dz on return; of the residuals
//                               and the rest of the direction a lane sees its own entries
//   recover(team, it)           z and nu that belong to the multipliers, where it does not iterate
//                               on them
//   factor_active(team, it)     factors the KKT matrix of the sides that hold, it.active, of which
//                               a lane needs to see its own entries. Of the factor too it sees them
//                               on return, which direction_active makes visible to all
//   direction_active(team, it)  from it.r_d, it.r_p, it.y: the step to where those sides are met. A
//                               lane needs to see its own entries, and sees those of the step
//   kDamped, damping, stiffness whether and how steps are damped, see below; the weight of a
//                               constraint that holds as an equality
//   data, soft                  of a damped form: Q, A and C, and whether it solves the soft problem
//   give(lam)                   how far a side may be missed: 0, but for primal_form.hpp's soft
//                               problem
//
// A step keeps for each side s > 0, lam > 0 and moves towards s lam = sigma mu. One step length
// serves primal and dual.
//
// Damping. As iterates converge the weights lam / s of sides that hold grow without bound, and with
// them the condition of a condensed system: linear programs stall. A damped step meets
//
//   sign dy + ds - delta dlam = -r       instead of       sign dy + ds = -r
//
// which is one step of the proximal method of multipliers (Schwan et al., PIQP, 2023): no weight
// exceeds 1 / delta. The residuals are those of the problem itself, so that delta changes the way
// and not the solution.

#include "core/settings.hpp"
#include "qp/iterate.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Where an iterate stands.
template <class Scalar>
struct Progress {
  Scalar merit;          ///< largest residual over its tolerance: at most 1 when solved
  Scalar gap_tolerance;  ///< of the duality gap, in the units of the solver: above it, falling
                         ///< complementarity is progress
  MaskOf<Scalar> primal_infeasible, dual_infeasible;  ///< the iterate proves it
};

/// How a solve went, per problem.
template <class Scalar>
struct Outcome {
  Scalar merit, iterations;
  MaskOf<Scalar> primal_infeasible, dual_infeasible;
  MaskOf<Scalar> polished;      ///< the best point is an exact one, on the active set
  Residuals<Scalar> residuals;  ///< of polished points

  TORCHQP_HD Outcome()
      : merit(broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max())),
        iterations(broadcast<Scalar>(0)),
        primal_infeasible(broadcast_mask<Scalar>(false)),
        dual_infeasible(primal_infeasible),
        polished(primal_infeasible),
        residuals{} {}
};

/// Fraction of the way to the boundary that a step may go.
inline constexpr double kStepFraction = 0.995;
/// Iterations without progress after which a problem stops; single precision has less to wait for.
template <class Scalar>
inline constexpr int patience_v = sizeof(Element<Scalar>) == 8 ? 12 : 6;
/// Complementarity counts as progress while it falls by this factor, down to this share of the gap's
/// tolerance: relative residuals say nothing while multipliers are still orders of magnitude off.
inline constexpr double kMuProgress = 0.5, kLeastMu = 1e-3;
/// Steps of a damped form in single precision before its pivots are raised and its directions
/// refined. Ordinary problems are solved by then: from the first step on, both would cost them a tenth
/// to a fifth of their time. Of the 48 published problems that the tests count, 43 come to 1e-3
/// without the two, 44 at most with one of them, 47 with both; at least 46 with 6 to 12 steps.
inline constexpr int kPlainSteps = 8;
/// Weight of a constraint that holds as an equality, in scaled units; the error it leaves shrinks
/// by its inverse a step.
template <class Scalar>
inline constexpr double stiffness_v = sizeof(Element<Scalar>) == 8 ? 1e8 : 1e4;
/// Least slack and multiplier of a warm start, in scaled units: sqrt(1e-3), see Settings.
inline constexpr double kWarmFloor = 0.03;

/// The number of sides, at least 1.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD Scalar count_sides(const Team& team, const Iterate<Scalar>& it, int k) {
  Scalar count[1] = {broadcast<Scalar>(0)};
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(k, [&](int i) { count[0] = count[0] + side.has[i]; });
  });
  team.template add_all<Site::kStart>(count);
  return maximum(count[0], broadcast<Scalar>(1));
}

/// Marks the sides that exist and puts every variable at its neutral value.
///
/// Team: every lane calls; a lane reads and writes its own entries only, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void reset_iterate(const Team& team, const Shape& s, const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  team.for_each(s.k, [&](int i) {
    it.lam_equal[i] = zero;
    it.equal[i] = zero;
    if (it.has_equal()) {
      const auto closed =
          both(is_finite(it.upper.bound[i]), it.upper.bound[i] <= it.lower.bound[i]);
      it.equal[i] = select(closed, one, zero);
    }
  });
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(s.k, [&](int i) {
      side.has[i] = select(is_finite(side.bound[i]), one - it.equal[i], zero);
      side.s[i] = one, side.lam[i] = zero, side.r[i] = zero;
      side.ds[i] = zero, side.dlam[i] = zero, side.inv_s[i] = one, side.inv_lam[i] = one;
    });
  });
  team.for_each(s.np, [&](int i) { it.z[i] = zero, it.dz[i] = zero; });
  team.for_each(s.pp, [&](int i) { it.nu[i] = zero, it.dnu[i] = zero; });
  team.for_each(
      s.k, [&](int i) { it.lam[i] = zero, it.y[i] = zero, it.dlam[i] = zero, it.dy[i] = zero; });
}

/// All multipliers of constraints zero.
///
/// Team: every lane calls and writes its own entries, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void clear_multipliers(const Team& team, const Shape& s,
                                       const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(s.k, [&](int i) {
    it.for_each_side([&](const Side<Scalar>& side) { side.lam[i] = zero; });
    it.lam_equal[i] = zero;
  });
}

/// The least-squares start: minimises 1/2 z'Qz + q'z + 1/2 |y - target|^2 with Az = b, then shifts
/// slacks and multipliers into the interior (Mehrotra 1992).
///
/// Team: every lane calls; on return a lane sees its own entries of the iterate.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void cold_start(const Team& team, const Shape& s, Form& form,
                                const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5),
               one = broadcast<Scalar>(1);
  form.evaluate(team, it);
  team.for_each(s.k, [&](int i) {
    Scalar sides = zero, target = zero;
    it.for_each_side([&](const Side<Scalar>& side) {
      sides = sides + side.has[i];
      target = target + select(side.has[i] > zero, side.bound[i], zero);
    });
    target = select(sides > one, half * target, target);
    if (it.has_equal()) {
      sides = sides + it.equal[i];
      target = select(it.equal[i] > zero, it.upper.bound[i], target);
    }
    it.weight[i] = minimum(sides, one);
    it.t[i] = it.weight[i] * (it.y[i] - target);
  });
  form.factor(team, it.weight);
  form.direction(team, it);
  team.for_each(s.np, [&](int i) { it.z[i] = it.dz[i]; });
  team.for_each(s.pp, [&](int i) { it.nu[i] = it.dnu[i]; });
  // What must be added to the slacks and multipliers; rounding is monotonic, so that the least of
  // them says it.
  Scalar shifts[2] = {zero, zero};
  team.for_each(s.k, [&](int i) {
    it.y[i] = it.y[i] + it.dy[i];
    const Scalar share = it.has_upper && it.has_lower
                             ? select(it.upper.has[i] + it.lower.has[i] > one, half, one)
                             : one;
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      const auto exists = side.has[i] > zero;
      side.s[i] = select(exists, sign * (side.bound[i] - it.y[i]), one);
      side.lam[i] = select(exists, sign * (it.dlam[i] * share), zero);
      const auto raise = [&](Scalar& shift, Scalar x) {
        shift = select(both(exists, x <= zero), maximum(shift, one - x), shift);
      };
      raise(shifts[0], side.s[i]);
      raise(shifts[1], side.lam[i]);
    });
    it.lam_equal[i] = it.equal[i] * it.dlam[i];
  });
  team.template max_all<Site::kStart>(shifts);
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(s.k, [&](int i) {
      side.s[i] = fused(side.has[i], shifts[0], side.s[i]);
      side.lam[i] = fused(side.has[i], shifts[1], side.lam[i]);
    });
  });
}

/// Starts from the point in it.z, it.nu, it.lam (scaled): slacks and multipliers are lifted to the
/// floor. Entries that are not finite are taken as zero.
///
/// Team: every lane calls and sees its own entries of the point on entry, of the iterate on return.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void warm_start(const Team& team, const Shape& s, Form& form,
                                const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1),
               floor = broadcast<Scalar>(kWarmFloor);
  team.for_each(s.np, [&](int i) { it.z[i] = select(is_finite(it.z[i]), it.z[i], zero); });
  team.for_each(s.pp, [&](int i) { it.nu[i] = select(is_finite(it.nu[i]), it.nu[i], zero); });
  team.for_each(s.k, [&](int i) {
    const Scalar net = select(is_finite(it.lam[i]), it.lam[i], zero);
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar part = maximum(broadcast<Scalar>(side.sign) * net, floor);
      side.lam[i] = select(side.has[i] > zero, part, zero);
    });
    it.lam_equal[i] = it.equal[i] * net;
  });
  form.evaluate(team, it);
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(s.k, [&](int i) {
      const Scalar slack = broadcast<Scalar>(side.sign) * (side.bound[i] - it.y[i]);
      side.s[i] = select(side.has[i] > zero, maximum(slack, floor), one);
    });
  });
}

namespace detail {

/// x / (1 + delta w), what damping leaves of x on a side with weight w; x in a form without damping.
template <class Form, class Scalar>
TORCHQP_HD Scalar damped(const Form& form, Scalar w, Scalar x) {
  if constexpr (Form::kDamped) {
    return x * reciprocal(fused(broadcast<Scalar>(form.damping), w, broadcast<Scalar>(1)));
  } else {
    return x;
  }
}

/// ds and dlam on all sides, where target(side, i) is what dlam is without ds, from
///
///   sign dy + ds - delta dlam = -r,   dlam = target - lam / s ds.
///
/// Returns the largest of -ds/s and -dlam/lam, at least 0: the reciprocal of the step to the
/// boundary.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar, class Form, class Target>
TORCHQP_HD Scalar move_sides(const Team& team, const Form& form, const Iterate<Scalar>& it, int k,
                             Target target) {
  // maximum passes over NaNs, so that the largest does not depend on the order.
  Scalar decrease[1] = {broadcast<Scalar>(0)};
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(k, [&](int i) {
      const Scalar w = side.lam[i] * side.inv_s[i];
      Scalar ds = -(side.has[i] * fused(broadcast<Scalar>(side.sign), it.dy[i], side.r[i]));
      const Scalar dlam = damped(form, w, fnma(w, ds, target(side, i)));
      if constexpr (Form::kDamped) ds = fused(broadcast<Scalar>(form.damping), dlam, ds);
      side.ds[i] = ds, side.dlam[i] = dlam;
      decrease[0] = maximum(decrease[0], -(ds * side.inv_s[i]));
      decrease[0] = maximum(decrease[0], -(dlam * side.inv_lam[i]));
    });
  });
  team.template max_all<Site::kStep>(decrease);
  return decrease[0];
}

/// sum over all sides of (s + alpha ds)(lam + alpha dlam).
///
/// Team: every lane calls; the direction is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL Scalar complementarity_after(const Team& team, const Shape& s,
                                             const Iterate<Scalar>& it, Scalar alpha) {
  Scalar result[1];
  team.template sums<Site::kDirection>(s.longest_side(), result, [&](int i, Scalar(&sum)[1]) {
    s.for_constraints_at(i, [&](int c) {
      it.for_each_side([&](const Side<Scalar>& side) {
        sum[0] = fused(fused(alpha, side.ds[c], side.s[c]), fused(alpha, side.dlam[c], side.lam[c]),
                       sum[0]);
      });
    });
  });
  return result[0];
}

/// One step of iterative refinement of the direction d that is there. With the residuals r + (r + K d)
/// in place of r a form, which is linear in them, gives d and its correction at once, without another
/// vector.
///
///   in/out  it.r_d, it.r_p  consumed
///   work    it.Qz, it.Atnu, it.Ctlam
///
/// Team: every lane calls; on entry and on return it sees of d what Form::direction leaves.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void refine_direction(const Team& team, const Shape& s, Form& form,
                                      const Iterate<Scalar>& it) {
  // After this all see dlam and dnu: with a dense Q it waits, and the direction for a diagonal did.
  multiply_hessian(team, form.data, it.dz, it.Qz);
  constraint_transpose(team, form.data, it.dlam, it.Ctlam);
  constexpr auto kReplace = linalg::Into::kReplace;
  const Scalar* A = form.data.A;
  linalg::multiply_transposed<kReplace>(team, A, s.np, s.pp, s.np, it.dnu, it.Atnu);
  linalg::multiply<kReplace>(team, A, s.np, s.pp, s.np, it.dz, it.dnu);
  team.for_each(s.np, [&](int i) {
    const Scalar left = ((it.r_d[i] + it.Qz[i]) + it.Ctlam[i]) + it.Atnu[i];
    it.r_d[i] = it.r_d[i] + left;
  });
  team.for_each(s.pp, [&](int i) { it.r_p[i] = it.r_p[i] + (it.r_p[i] + it.dnu[i]); });
  form.direction(team, it);
}

/// One predictor-corrector step of the problems in `moving`; mu is their complementarity per side.
/// With `coarse`, rounding decides by now what the factor of a damped form is worth.
///
/// Team: every lane calls; the iterate and its residuals are visible to all on entry; on return a
/// lane sees its own entries of the new iterate.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void take_step(const Team& team, const Shape& s, Form& form,
                               const Iterate<Scalar>& it, Scalar sides, Scalar mu,
                               MaskOf<Scalar> moving, bool coarse) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1),
               stiff = broadcast<Scalar>(form.stiffness);
  team.for_each(s.k, [&](int i) {
    Scalar weight = zero, t = zero;
    it.for_each_side([&](const Side<Scalar>& side) {
      side.inv_s[i] = reciprocal(side.s[i]);
      side.inv_lam[i] = select(side.has[i] > zero, reciprocal(side.lam[i]), one);
      const Scalar sign = broadcast<Scalar>(side.sign);
      const Scalar slack = select(side.has[i] > zero, sign * (side.bound[i] - it.y[i]), one);
      side.r[i] = side.s[i] - (slack + form.give(side.lam[i]));
      const Scalar w = side.lam[i] * side.inv_s[i];
      weight = weight + damped(form, w, w);
      t = fused(sign, damped(form, w, fused(w, side.r[i], -side.lam[i])), t);
    });
    if (it.has_equal()) {
      const auto closed = it.equal[i] > zero;
      weight = select(closed, stiff, weight);
      const Scalar miss = (it.y[i] - it.upper.bound[i]) - form.give(it.lam_equal[i]);
      t = select(closed, stiff * miss, t);
    }
    it.weight[i] = weight;
    it.t[i] = t;
  });
  constexpr bool kCoarse = Form::kDamped && sizeof(Element<Scalar>) == 4;
  if constexpr (kCoarse) {
    form.factor(team, it.weight, coarse);
  } else {
    form.factor(team, it.weight);
  }
  form.direction(team, it);
  const Scalar furthest =
      move_sides(team, form, it, s.k, [](const Side<Scalar>& side, int i) { return -side.lam[i]; });
  const Scalar reach = reciprocal(maximum(furthest, one));
  const Scalar ratio = complementarity_after(team, s, it, reach) / (sides * mu);
  const Scalar centre = select(mu > zero, ratio * ratio * ratio * mu, zero);

  team.for_each(s.k, [&](int i) {
    Scalar t = zero;
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar target = fnma(side.ds[i], side.dlam[i], centre) * side.inv_s[i];
      side.dlam[i] = fused(side.has[i], target, -side.lam[i]);
      const Scalar w = side.lam[i] * side.inv_s[i];
      t = fused(broadcast<Scalar>(side.sign), damped(form, w, fused(w, side.r[i], side.dlam[i])),
                t);
    });
    it.t[i] = it.has_equal() ? select(it.equal[i] > zero, it.t[i], t) : t;
  });
  team.template sync<Site::kDirection>();
  form.direction(team, it);
  if constexpr (kCoarse) {
    if (coarse && !form.soft) refine_direction(team, s, form, it);
  }
  const Scalar decrease =
      move_sides(team, form, it, s.k, [](const Side<Scalar>& side, int i) { return side.dlam[i]; });
  const Scalar alpha =
      broadcast<Scalar>(kStepFraction) / maximum(decrease, broadcast<Scalar>(kStepFraction));
  const auto advance = [&](Scalar& x, Scalar dx) { x = select(moving, fused(alpha, dx, x), x); };
  it.for_each_side([&](const Side<Scalar>& side) {
    team.for_each(s.k, [&](int i) {
      advance(side.s[i], side.ds[i]);
      advance(side.lam[i], side.dlam[i]);
    });
  });
  if (it.has_equal())
    team.for_each(s.k, [&](int i) { advance(it.lam_equal[i], it.equal[i] * it.dlam[i]); });
  team.for_each(s.np, [&](int i) { advance(it.z[i], it.dz[i]); });
  team.for_each(s.pp, [&](int i) { advance(it.nu[i], it.dnu[i]); });
}

}  // namespace detail

/// Copies the iterate to (`keep`) or from the best one, for the problems in `which`.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void copy_best(const Team& team, const Shape& s, const Iterate<Scalar>& it,
                               MaskOf<Scalar> which, bool keep) {
  const auto copy = [&](Scalar* current, Scalar* best, int count) {
    team.for_each(count, [&](int i) {
      Scalar& to = keep ? best[i] : current[i];
      to = select(which, keep ? current[i] : best[i], to);
    });
  };
  copy(it.z, it.best_z, s.np);
  copy(it.nu, it.best_nu, s.pp);
  if (it.has_upper) copy(it.upper.lam, it.best_upper, s.k);
  if (it.has_lower) copy(it.lower.lam, it.best_lower, s.k);
  copy(it.lam_equal, it.best_equal, s.k);
  copy(it.active, it.best_active, s.k);
  team.template sync<Site::kBest>();
}

/// Iterates from a started iterate until the merit is at most `target`, or no progress is made, or
/// a certificate is found.
///
///   in/out  it        started; on return the best iterate met, or the one that is a certificate.
///                     Slacks that belong to another iterate become those of the constraints, at
///                     least 0, from which one cannot go on
///   in      frozen    problems that are not touched
///   out     outcome   merit and certificates of the best iterate; iterations are added to
///
/// Team: every lane calls with equal arguments and sees its own entries of the iterate on entry and
/// on return.
/// Bitwise: equal for every team size; a problem's iterates do not depend on its company.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void interior_point(const Team& team, const Shape& s, Form& form,
                                    const Iterate<Scalar>& it, double target, int max_iter,
                                    MaskOf<Scalar> frozen, Outcome<Scalar>& outcome) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const Scalar sides = count_sides(team, it, s.k);
  Scalar best = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max()), waited = zero;
  Scalar least_mu = best;
  auto done = frozen, newest = frozen;  // newest: the iterate is the best one
  for (int iteration = 0;; ++iteration) {
    const Progress<Scalar> progress = form.evaluate(team, it);
    const auto proved =
        both(negate(done), either(progress.primal_infeasible, progress.dual_infeasible));
    const auto better = either(proved, both(negate(done), progress.merit < best));
    if (any(better)) copy_best(team, s, it, better, true);
    newest = either(both(done, newest), better);
    const Scalar mu = detail::complementarity_after(team, s, it, zero) / sides;
    const auto nearer =
        both(mu<broadcast<Scalar>(kMuProgress) * least_mu, mu * sides> broadcast<Scalar>(kLeastMu) *
             progress.gap_tolerance);
    least_mu = select(nearer, mu, least_mu);
    waited =
        select(either(nearer, progress.merit < broadcast<Scalar>(0.9) * best), zero, waited + one);
    best = select(better, progress.merit, best);
    outcome.primal_infeasible =
        either(outcome.primal_infeasible, both(proved, progress.primal_infeasible));
    outcome.dual_infeasible =
        either(outcome.dual_infeasible, both(proved, progress.dual_infeasible));
    done = either(done, either(proved, best <= broadcast<Scalar>(target)));
    done = either(done, waited >= broadcast<Scalar>(patience_v<Scalar>));
    done = either(done, negate(is_finite(progress.merit)));
    if (iteration == max_iter || all(done)) break;
    outcome.iterations = select(done, outcome.iterations, outcome.iterations + one);
    detail::take_step(team, s, form, it, sides, mu, negate(done), iteration >= kPlainSteps);
  }
  copy_best(
      team, s, it,
      both(negate(frozen), best < broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max())),
      false);
  if (!all(newest)) {
    form.evaluate(team, it);
    it.for_each_side([&](const Side<Scalar>& side) {
      team.for_each(s.k, [&](int i) {
        const Scalar slack = broadcast<Scalar>(side.sign) * (side.bound[i] - it.y[i]);
        const auto stale = both(negate(newest), side.has[i] > zero);
        side.s[i] = select(stale, maximum(slack, zero), side.s[i]);
      });
    });
  }
  outcome.merit = select(frozen, outcome.merit, best);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
