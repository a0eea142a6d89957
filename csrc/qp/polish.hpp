#pragma once
// The sharp end of a solve: from an interior point's guess of the sides that hold to the exact
// solution on them.
//
// An interior point that stops at 1e-8 leaves the active set blurred, and a gradient taken there is
// that of a barrier problem. Solving the equality-constrained QP of the active sides gives the
// solution, and its factor gives the gradient, to rounding. A wrong guess shows as a multiplier of
// the wrong sign (released) or a violated side (added), and is tried again.

#include "qp/interior_point.hpp"
#include "qp/residuals.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Where polishing starts.
enum class Polish {
  kGuess,     ///< from an interior iterate, whose active set is guessed
  kPrepared,  ///< from it.active, with it.z, it.nu, it.lam and the form's factor on it
  kOneSet,    ///< the same, and no other set is tried: it.active is revised where it is wrong
};

/// Guesses of the active set that are tried.
inline constexpr int kPolishRounds = 8;
/// Newton steps on one guess at most: the first solves, the others refine.
inline constexpr int kPolishSteps = 6;
/// Error, in roundings of the sizes involved, up to which a point on its active set is left as it
/// is: after an interior point, and where pivoting has found the set and its gradient stands. 512
/// in double precision are 1e-13, what one Newton step leaves at n = 200 with a condition of 1e7; a
/// second one gains nothing. 64 in single precision are 8e-6, a twelfth of its tolerance. After an
/// interior point linear programs need the tighter 4 to come out on their set, and a step costs
/// little beside the factorizations before it.
template <class Scalar>
inline constexpr double fine_v = 4.0;
template <class Scalar>
inline constexpr double fine_on_set_v = sizeof(Element<Scalar>) == 8 ? 512.0 : 64.0;
/// Sign errors and violations below this share of the largest multiplier and value are rounding.
template <class Scalar>
inline constexpr double polish_tolerance_v = sizeof(Element<Scalar>) == 8 ? 1e-11 : 1e-5;

/// The sides that an interior iterate takes for active: multiplier above slack. it.active is
/// written.
///
/// Team: every lane calls; a lane reads and writes its own entries only, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void guess_active(const Team& team, const Shape& s, const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(s.k, [&](int i) {
    Scalar held = it.equal[i];
    it.for_each_side([&](const Side<Scalar>& side) {
      held = select(both(side.has[i] > zero, side.lam[i] > side.s[i]), broadcast<Scalar>(side.sign),
                    held);
    });
    it.active[i] = held;
  });
}

namespace detail {

/// Hands the net multipliers it.lam to the sides that hold, for the problems in `which`; the
/// others' become zero.
///
/// Team: every lane calls; a lane reads and writes its own entries only, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void assign_multipliers(const Team& team, const Shape& s, const Iterate<Scalar>& it,
                                        MaskOf<Scalar> which) {
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(s.k, [&](int i) {
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      const Scalar value =
          select(both(side.has[i] > zero, it.active[i] == sign), sign * it.lam[i], zero);
      side.lam[i] = select(which, value, side.lam[i]);
    });
    it.lam_equal[i] = select(which, it.equal[i] * it.lam[i], it.lam_equal[i]);
  });
}

/// How far (z, nu, lam) is from solving the equalities of the active set, relative to the sizes
/// involved.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL Scalar active_error(const Team& team, const Shape& s, const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  Scalar norms[4] = {zero, one, zero, one};
  Scalar &d = norms[0], &d_size = norms[1], &c = norms[2], &c_size = norms[3];
  team.for_each(s.np, [&](int i) {
    d = max_norm(d, it.r_d[i]);
    d_size = max_norm(max_norm(max_norm(d_size, it.Qz[i]), it.Atnu[i]), it.Ctlam[i]);
    c_size = max_norm(c_size, it.z[i]);
  });
  team.for_each(s.pp, [&](int i) { c = max_norm(c, it.r_p[i]); });
  team.for_each(s.k, [&](int i) {
    c = max_norm(c, select(it.active[i] != zero, it.y[i] - it.active_bound(i), zero));
  });
  team.template max_all<Site::kPolishStep>(norms);
  return max_norm(d / d_size, c / c_size);
}

/// Releases sides whose multiplier has the wrong sign and adds violated ones; says where anything
/// changed.
///
/// Team: every lane calls; a lane needs to see its own entries, and sees those of it.active on
/// return.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> revise_active(const Team& team, const Shape& s,
                                             const Iterate<Scalar>& it, MaskOf<Scalar> which) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  Scalar sizes[2] = {one, one};  // of lam and y
  team.for_each(s.k, [&](int i) {
    sizes[0] = max_norm(sizes[0], it.lam[i]);
    sizes[1] = max_norm(sizes[1], it.y[i]);
  });
  team.template max_all<Site::kPolishSet>(sizes);
  const Scalar lam_tolerance = sizes[0] * broadcast<Scalar>(polish_tolerance_v<Scalar>);
  const Scalar y_tolerance = sizes[1] * broadcast<Scalar>(polish_tolerance_v<Scalar>);
  const auto revised = [&](int i) {
    Scalar held = it.active[i];
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      const auto exists = side.has[i] > zero, mine = it.active[i] == sign;
      const auto wrong = both(both(exists, mine), sign * it.lam[i] < -lam_tolerance);
      held = select(wrong, zero, held);
      const auto violated =
          both(both(exists, it.active[i] == zero), sign * (it.y[i] - side.bound[i]) > y_tolerance);
      held = select(violated, sign, held);
    });
    return held;
  };
  Scalar changes[1] = {zero};
  team.for_each(s.k,
                [&](int i) { changes[0] = select(revised(i) != it.active[i], one, changes[0]); });
  team.template max_all<Site::kPolishSet>(changes);
  const auto changed = changes[0] > zero;
  team.for_each(
      s.k, [&](int i) { it.active[i] = select(both(which, changed), revised(i), it.active[i]); });
  return changed;
}

}  // namespace detail

/// Solves on the active set of the iterate and keeps the result where it is better.
///
///   in/out   it          the best interior iterate; on return, also in the best_ arrays, the
///                        polished point where it was accepted
///   in       candidates  problems to work on
///   in       how         where the first guess comes from
///   in/out   outcome     merit and residuals, replaced where accepted
///   returns              where the polished point was accepted
///
/// Team:    every lane calls with equal arguments and sees its own entries of the iterate on entry
///          and on return.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL MaskOf<Scalar> polish(const Team& team, const Data<Scalar>& data,
                                      const Scale<Scalar>& scale, const Settings& settings,
                                      Form& form, const Iterate<Scalar>& it,
                                      MaskOf<Scalar> candidates, Polish how,
                                      Outcome<Scalar>& outcome) {
  const Shape& s = data.shape;
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  auto pending = candidates, accepted = broadcast_mask<Scalar>(false);
  const bool prepared = how != Polish::kGuess;
  if (!prepared) {
    net_multipliers(team, s, it);
    guess_active(team, s, it);
  }
  for (int round = 0; round < (how == Polish::kOneSet ? 1 : kPolishRounds) && any(pending);
       ++round) {
    detail::assign_multipliers(team, s, it, pending);
    if (round > 0 || !prepared) form.factor_active(team, it);
    Residuals<Scalar> r = kkt_residuals(team, data, scale, it);
    Scalar error = detail::active_error(team, s, it);
    const Scalar fine =
        broadcast<Scalar>((prepared ? fine_on_set_v<Scalar> : fine_v<Scalar>)*epsilon_v<Scalar>);
    auto moving = prepared ? both(pending, negate(error <= fine)) : pending;
    for (int step = 0; step < kPolishSteps && any(moving); ++step) {
      form.direction_active(team, it);
      const auto advance = [&](Scalar& x, Scalar dx) { x = select(moving, x + dx, x); };
      team.for_each(s.np, [&](int i) { advance(it.z[i], it.dz[i]); });
      team.for_each(s.pp, [&](int i) { advance(it.nu[i], it.dnu[i]); });
      team.for_each(
          s.k, [&](int i) { advance(it.lam[i], select(it.active[i] != zero, it.dlam[i], zero)); });
      detail::assign_multipliers(team, s, it, moving);
      r = kkt_residuals(team, data, scale, it);
      const Scalar now = detail::active_error(team, s, it);
      moving = both(moving, both(now<half * error, now> fine));
      error = now;
    }
    const auto is_good = [&](Scalar merit) {
      const auto good = both(merit <= broadcast<Scalar>(1),
                             either(merit <= outcome.merit, merit <= broadcast<Scalar>(0.01)));
      // An interior point that stalled above the tolerances has nothing to come.
      return prepared ? good : either(good, merit < outcome.merit);
    };
    Scalar merit = r.merit(settings);
    const auto changed = detail::revise_active(team, s, it, pending);
    auto kept = both(pending, both(is_good(merit), negate(changed)));
    if (any(kept)) {
      // What is left of wrong signs is small beside the largest multiplier: a multiplier is zero or
      // of the right sign, and the residuals are those of the point with that.
      Scalar wrong[1] = {zero};
      it.for_each_side([&](const Side<Scalar>& side) {
        team.for_each(s.k, [&](int i) {
          wrong[0] = maximum(wrong[0], -side.lam[i]);
          side.lam[i] = select(kept, maximum(side.lam[i], zero), side.lam[i]);
        });
      });
      team.template max_all<Site::kPolishSet>(wrong);
      const auto mended = both(kept, wrong[0] > zero);
      if (any(mended)) {
        r.take(mended, kkt_residuals(team, data, scale, it));
        merit = r.merit(settings);
        kept = both(kept, either(negate(mended), is_good(merit)));
      }
      copy_best(team, s, it, kept, true);
      outcome.merit = select(kept, merit, outcome.merit);
      outcome.residuals.take(kept, r);
      accepted = either(accepted, kept);
    }
    pending = both(pending, changed);
  }
  if (how != Polish::kOneSet) {
    copy_best(team, s, it, both(candidates, negate(accepted)), false);
  }
  outcome.polished = either(outcome.polished, accepted);
  return accepted;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
