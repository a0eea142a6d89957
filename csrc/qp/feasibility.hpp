#pragma once
// Whether the constraints of a problem that was not solved have a point at all.
//
// An interior point that fails on contradictory constraints seldom ends on a clean certificate: its
// multipliers grow along one, on top of those that the objective asks for. The soft problem of
// primal_form.hpp has no objective, always has a solution, and its multipliers are the certificate.

#include "qp/solver.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// The merit at which constraints count as met: far enough below the tolerances that a contradiction
/// of their size is proved first.
inline constexpr double kSoftTarget = 1e-3;

/// Solves the soft problem of those in `which`; what it proves is in the best_ multipliers.
///
///   in/out   solver   Q and q of these problems become zero, and the form is soft
///   out      outcome  its certificates and iterations, which count from zero
///
/// Team: every lane calls with equal arguments; on return a lane sees its own entries of the
/// iterate, and others may still ask whether the form is soft. The iterates of all problems and what
/// the form had factored are lost; the best_ arrays of the others stay.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void seek_certificate(const Team& team, Solver<Scalar>& solver, Form& form,
                                      MaskOf<Scalar> which, Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Scalar zero = broadcast<Scalar>(0);
  const auto clear = [&](Scalar& entry) { entry = select(which, zero, entry); };
  team.for_each(s.np, [&](int i) { clear(solver.data.q[i]); });
  if (s.diagonal) {
    team.for_each(s.n, [&](int i) { clear(solver.data.Q[i]); });
  } else {
    team.for_each(s.np * s.np, [&](int i) { clear(solver.data.Q[i]); });
  }
  team.single([&] { form.set_soft(true); });  // visible before it is first asked for, in evaluate
  form.form_base(team);
  reset_iterate(team, s, it);
  cold_start(team, s, form, it);
  interior_point(team, s, form, it, kSoftTarget, solver.settings.max_iter, negate(which), outcome);
}

}  // namespace detail
TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
