#pragma once
// The state of one interior-point solve.

#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// One side of all k constraints, y <= bound (sign = 1) or y >= bound (sign = -1): slack s = sign
/// (bound - y) > 0.
template <class Scalar>
struct Side {
  double sign;
  const Scalar* bound;      ///< [k]
  Scalar* has;              ///< [k] 1 where the side exists, else 0; no array here where no
                            ///< constraint has this side
  Scalar *s, *lam;          ///< [k] slack and multiplier; 1 and 0 where there is no side
  Scalar *inv_s, *inv_lam;  ///< [k] reciprocals at the current iterate
  Scalar* r;                ///< [k] s - sign (bound - y)
  Scalar *ds, *dlam;        ///< [k] direction

  TORCHQP_HD Side(double side_sign, const Scalar* side_bound, int k, Arena<Scalar>& arena)
      : sign(side_sign),
        bound(side_bound),
        has(arena.take(k)),
        s(arena.take(k)),
        lam(arena.take(k)),
        inv_s(arena.take(k)),
        inv_lam(arena.take(k)),
        r(arena.take(k)),
        ds(arena.take(k)),
        dlam(arena.take(k)) {}
};

/// Primal and dual variables, residuals and direction. lam and dlam are net: upper side minus lower
/// side.
template <class Scalar>
struct Iterate {
  Side<Scalar> upper, lower;
  bool has_upper, has_lower;
  Scalar *z, *nu, *lam, *y;      ///< [np] [pp] [k] [k]; y = (G z, z)
  Scalar *dz, *dnu, *dlam, *dy;  ///< direction
  Scalar *r_d, *r_p;             ///< [np] Qz + q + A'nu + C'lam   [pp] Az - b
  Scalar *Qz, *Atnu, *Ctlam;     ///< [np] the terms of r_d, kept for the reference sizes
  Scalar *t, *weight;            ///< [k] direction: dlam = t + weight dy
  Scalar* active;                ///< [k] +1, -1, 0: the side that holds
  Scalar *equal, *lam_equal;     ///< [k] 1 where the sides coincide: no interior, an equality with
                                 ///< this multiplier
  /// The best point met, per problem: z, nu, the three kinds of multipliers and the sides that
  /// hold.
  Scalar *best_z, *best_nu, *best_upper, *best_lower, *best_equal, *best_active;

  /// Without `interior` there is no memory for an interior point: sides and the best point.
  TORCHQP_HD Iterate(const Data<Scalar>& data, bool interior, Arena<Scalar>& arena)
      : upper(1.0, data.upper, interior && data.shape.upper ? data.shape.k : 0, arena),
        lower(-1.0, data.lower, interior && data.shape.lower ? data.shape.k : 0, arena),
        has_upper(data.shape.upper),
        has_lower(data.shape.lower) {
    const Shape& s = data.shape;
    z = arena.take(s.np), nu = arena.take(s.pp), lam = arena.take(s.k), y = arena.take(s.k);
    dz = arena.take(s.np), dnu = arena.take(s.pp), dlam = arena.take(s.k), dy = arena.take(s.k);
    r_d = arena.take(s.np), r_p = arena.take(s.pp);
    Qz = arena.take(s.np), Atnu = arena.take(s.np), Ctlam = arena.take(s.np);
    t = arena.take(s.k), weight = arena.take(s.k), active = arena.take(s.k);
    equal = arena.take(s.k), lam_equal = arena.take(s.k);
    if (!interior) return;
    best_z = arena.take(s.np), best_nu = arena.take(s.pp);
    best_upper = arena.take(has_upper ? s.k : 0), best_lower = arena.take(has_lower ? s.k : 0);
    best_equal = arena.take(s.k), best_active = arena.take(s.k);
  }

  /// Whether sides can coincide.
  TORCHQP_HD bool has_equal() const { return has_upper && has_lower; }

  /// The bound of the side that holds in constraint i; meaningless where none does.
  TORCHQP_HD Scalar active_bound(int i) const {
    if (!has_lower) return upper.bound[i];
    if (!has_upper) return lower.bound[i];
    return select(active[i] > broadcast<Scalar>(0), upper.bound[i], lower.bound[i]);
  }

  /// f(side) for each side that some constraint may have.
  template <class F>
  TORCHQP_HD void for_each_side(F f) const {
    if (has_upper) f(upper);
    if (has_lower) f(lower);
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
