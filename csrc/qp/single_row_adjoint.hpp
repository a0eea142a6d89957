#pragma once
// The linearised KKT system (see adjoint.hpp) of a positive diagonal Q = diag(D), bounds and at
// most one row a. With F the variables that no bound holds, and a's equation if the row holds,
//
//   d_i = -(g_i + a_i d_nu) / D_i  on F,   d_i = -g_bound_i  elsewhere,
//   d_nu = (g_row - sum_F a g / D - sum_B a g_bound) / sum_F a^2 / D,
//   d_bound_i = -(g_i + D_i d_i + a_i d_nu).

#include "qp/single_row.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Entries of d_z below this many roundings of the terms they are made of are zero: where the row
/// and the bounds leave no freedom, the derivative is zero and not the noise around it.
inline constexpr double kRowRounding = 64;

/// Solves systems with has_single_row(a.data.shape).
///
///   in    a         an Adjoint; its data, g_z, g_nu, g_lam, active and live
///   out   a         d_z, d_nu, d_lam, for the problems returned; anything for the others
///   work  inverse   [np]
///   returns         the problems that are not live, whose answer is zero, and those where the
///                   formula holds; the others (D zero on F, a row that the bounds leave no
///                   freedom, numbers that are not finite) are left to the general method
///
/// Team:    every lane calls with equal arguments; inputs are visible to all on entry; ends with a
///          sync.
/// Bitwise: equal for every team size; a problem's answer does not depend on its company.
/// Cost:    two passes. Every lane of the team goes through all entries. Never allocates.
template <class Team, class Scalar, class System>
TORCHQP_HD_CALL MaskOf<Scalar> solve_single_row_adjoint(const Team& team, const System& a,
                                                        Scalar* inverse) {
  const Shape& s = a.data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  const bool has_row = s.m + s.p > 0;
  const Scalar *row = s.p > 0 ? a.data.A : a.data.G, *D = a.data.Q;
  const Scalar *held = a.active + s.mp, *g_bound = a.g_lam + s.mp;
  const auto live = a.live[0] > zero;
  Scalar sum = zero, size = zero, slope = zero;
  TORCHQP_ROLLED
  for (int i = 0; i < s.n; ++i) {
    const auto free = s.bounds ? held[i] == zero : broadcast_mask<Scalar>(true);
    const Scalar h = select(free, reciprocal(D[i]), zero);
    if (has_row) {
      const Scalar fixed = s.bounds ? select(free, zero, g_bound[i]) : zero;
      const Scalar term = row[i] * fused(a.g_z[i], h, fixed);
      sum = sum + term;
      size = size + absolute(term);
      slope = fused(row[i] * h, row[i], slope);
    }
    if (i % team.size() == team.lane()) inverse[i] = h;
  }
  team.template sync<Site::kSingleRow>();
  Scalar d_row = zero, noise = zero;
  if (has_row) {
    const auto held_row = s.p > 0 ? broadcast_mask<Scalar>(true) : a.active[0] != zero;
    const Scalar g_row = s.p > 0 ? a.g_nu[0] : a.g_lam[0];
    d_row = select(held_row, (g_row - sum) / slope, zero);
    noise = select(held_row, (size + absolute(g_row)) / slope, zero);
  }
  const Scalar rounding = broadcast<Scalar>(kRowRounding * epsilon_v<Scalar>);
  Scalar check = zero;  // NaN from where something is not finite
  TORCHQP_ROLLED
  for (int i = 0; i < s.n; ++i) {
    Scalar slope_of_z = a.g_z[i], terms = absolute(slope_of_z);
    if (has_row) {
      slope_of_z = fused(row[i], d_row, slope_of_z);
      terms = fused(absolute(row[i]), noise, terms);
    }
    const Scalar d = zero - slope_of_z * inverse[i];
    Scalar d_z = select(absolute(d) > rounding * (terms * inverse[i]), d, zero), d_bound = zero;
    check = fused(d, zero, check);
    if (s.bounds) {
      const auto free = held[i] == zero;
      const Scalar fixed = select(free, zero, zero - g_bound[i]);
      d_z = select(free, d_z, fixed);
      d_bound = select(free, zero, zero - fused(D[i], fixed, slope_of_z));
      check = fused(d_bound, zero, check);
    }
    if (i % team.size() == team.lane()) {
      a.d_z[i] = select(live, d_z, zero);
      if (s.bounds) a.d_lam[s.mp + i] = select(live, d_bound, zero);
    }
  }
  d_row = select(live, d_row, zero);
  team.for_each(s.np - s.n, [&](int i) { a.d_z[s.n + i] = zero; });
  team.for_each(s.pp, [&](int i) { a.d_nu[i] = i == 0 && s.p > 0 ? d_row : zero; });
  team.for_each(s.mp, [&](int i) { a.d_lam[i] = i == 0 ? d_row : zero; });
  if (s.bounds) team.for_each(s.np - s.n, [&](int i) { a.d_lam[s.mp + s.n + i] = zero; });
  team.template sync<Site::kAdjointKeep>();
  return either(negate(live), check == zero);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
