#pragma once
// What a solve leaves, and when it counts.

#include "core/status.hpp"
#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The merit at which a point counts as solved: single precision keeps a margin for the rounding of
/// its own residuals.
template <class Scalar>
inline constexpr double solved_merit_v = sizeof(Element<Scalar>) == 8 ? 1.0 : 0.5;
/// What a solve leaves, in the caller's units.
template <class Scalar>
struct Result {
  Scalar *z, *nu, *lam, *active;  ///< [np] [pp] [k] net, [k]
  Scalar* slack;                  ///< [mp] h - G z
  Scalar* residuals;              ///< [4]
  Scalar *status, *iterations;    ///< [1] Status as a number; [1]
  /// [1] which form's factor belongs to this solution: 1 the dual form's, -(cost scale) the
  /// condensed form's, 0 none: the diagonal form keeps no factor.
  Scalar* factor_tag;

  TORCHQP_HD Result(const Shape& s, Arena<Scalar>& arena)
      : z(arena.take(s.np)),
        nu(arena.take(s.pp)),
        lam(arena.take(s.k)),
        active(arena.take(s.k)),
        slack(arena.take(s.mp)),
        residuals(arena.take(4)),
        status(arena.take(1)),
        iterations(arena.take(1)),
        factor_tag(arena.take(1)) {}
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
