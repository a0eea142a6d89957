#pragma once
// Ruiz equilibration of the KKT matrix [Q A' G'; A; G]: every row and column brought to size one.

#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Passes of the equilibration; each halves the exponent of what is left.
inline constexpr int kRuizPasses = 6;

namespace detail {

/// 1 / sqrt(size), 1 for an empty row.
template <class Scalar>
TORCHQP_HD Scalar ruiz_factor(Scalar size) {
  return select(size > broadcast<Scalar>(0), reciprocal_sqrt(size), broadcast<Scalar>(1));
}

}  // namespace detail

/// Scales the data in place by powers of two, so that nothing is rounded, and multiplies `scale` by
/// the factors.
///
///   in/out  data, scale
///   in      given_cost   factor of the objective where positive; else it is chosen here
///   work    factor       [2 (np + mp + pp)]
///
/// Team:    every lane calls; data and scale are visible to all on entry; ends with a sync.
/// Source:  D. Ruiz, RAL-TR-2001-034. The objective is scaled by the largest of its scaled entries.
template <class Team, class Scalar>
TORCHQP_HD_CALL void equilibrate(const Team& team, const Data<Scalar>& data,
                                 const Scale<Scalar>& scale, Scalar given_cost, Scalar* factor) {
  const Shape& s = data.shape;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  Scalar *D = factor, *E = D + s.np, *F = E + s.mp;
  Scalar *next_D = F + s.pp, *next_E = next_D + s.np, *next_F = next_E + s.mp;
  team.for_each(s.np, [&](int j) { D[j] = one; });
  team.for_each(s.mp, [&](int i) { E[i] = one; });
  team.for_each(s.pp, [&](int i) { F[i] = one; });
  team.template sync<Site::kScaling>();
  for (int pass = 0; pass < kRuizPasses; ++pass) {
    team.for_each(s.np, [&](int j) {
      Scalar size = zero;
      if (s.diagonal) {
        size = absolute(data.Q[j] * D[j]);
      } else {
        TORCHQP_ROLLED
        for (int i = 0; i < s.np; ++i) size = max_norm(size, data.Q[i * s.np + j] * D[i]);
      }
      TORCHQP_ROLLED
      for (int i = 0; i < s.mp; ++i) size = max_norm(size, data.G[i * s.np + j] * E[i]);
      TORCHQP_ROLLED
      for (int i = 0; i < s.pp; ++i) size = max_norm(size, data.A[i * s.np + j] * F[i]);
      next_D[j] = D[j] * detail::ruiz_factor(size * D[j]);
    });
    const auto row_factor = [&](const Scalar* row, Scalar current) {
      Scalar size = zero;
      TORCHQP_ROLLED
      for (int j = 0; j < s.np; ++j) size = max_norm(size, row[j] * D[j]);
      return current * detail::ruiz_factor(size * current);
    };
    team.for_each(s.mp, [&](int i) { next_E[i] = row_factor(data.G + int64_t{i} * s.np, E[i]); });
    team.for_each(s.pp, [&](int i) { next_F[i] = row_factor(data.A + int64_t{i} * s.np, F[i]); });
    team.template sync<Site::kScaling>();  // all have read the old factors
    const bool last = pass + 1 == kRuizPasses;
    const Scalar most = broadcast<Scalar>(largest_row_factor_v<Scalar>);
    team.for_each(s.np, [&](int j) {
      D[j] = last ? maximum(power_of_two(next_D[j]), reciprocal(most)) : next_D[j];
    });
    team.for_each(s.mp, [&](int i) {
      E[i] = last ? minimum(power_of_two(next_E[i]), most / scale.row[i]) : next_E[i];
    });
    team.for_each(s.pp, [&](int i) { F[i] = last ? power_of_two(next_F[i]) : next_F[i]; });
    team.template sync<Site::kScaling>();
  }
  Scalar cost = given_cost;
  if (!all(given_cost > zero)) {
    Scalar norm[1] = {zero};
    Scalar& largest = norm[0];
    team.for_each(s.n, [&](int j) {
      largest = max_norm(largest, data.q[j] * D[j]);
      if (s.diagonal) largest = max_norm(largest, (data.Q[j] * D[j]) * D[j]);
    });
    for_each_row(team, s.diagonal ? 0 : s.n, [&](int i, int first, int step) {
      const Scalar* row = data.Q + i * s.np;
      const Scalar by = D[i];
      TORCHQP_ROLLED
      for (int j = first; j < s.n; j += step) largest = max_norm(largest, (row[j] * by) * D[j]);
    });
    team.template max_all<Site::kScaling>(norm);
    cost = select(given_cost > zero, given_cost, power_of_two(reciprocal(largest)));
  }
  // One factor after the other: their product can underflow where no entry does.
  const auto scale_rows = [&](Scalar* matrix, int rows, const Scalar* by_row, Scalar by_all) {
    for_each_row(team, rows, [&](int i, int first, int step) {
      Scalar* row = matrix + int64_t{i} * s.np;
      const Scalar by = by_row[i];
      TORCHQP_ROLLED
      for (int j = first; j < s.np; j += step) row[j] = ((row[j] * by) * D[j]) * by_all;
    });
  };
  scale_rows(data.Q, s.diagonal ? 0 : s.n, D, cost);  // the padding's identity stays
  scale_rows(data.G, s.mp, E, one);
  scale_rows(data.A, s.pp, F, one);
  team.for_each(s.np, [&](int i) {
    if (s.diagonal && i < s.n) data.Q[i] = ((data.Q[i] * D[i]) * D[i]) * cost;
    data.q[i] = (data.q[i] * D[i]) * cost;
    scale.variable[i] = scale.variable[i] * D[i];
  });
  team.for_each(s.mp, [&](int i) {
    data.lower[i] = data.lower[i] * E[i], data.upper[i] = data.upper[i] * E[i];
    scale.row[i] = scale.row[i] * E[i];
  });
  team.for_each(s.pp, [&](int i) {
    data.b[i] = data.b[i] * F[i];
    scale.equality[i] = scale.equality[i] * F[i];
  });
  if (s.bounds) {
    team.for_each(s.np, [&](int j) {
      const int i = s.mp + j;
      const Scalar by = reciprocal(D[j]);
      data.lower[i] = data.lower[i] * by, data.upper[i] = data.upper[i] * by;
      scale.row[i] = scale.row[i] * by;
    });
  }
  team.single([&] { scale.cost[0] = scale.cost[0] * cost; });
  team.template sync<Site::kScaling>();
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
