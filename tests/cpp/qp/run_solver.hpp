#pragma once
// One whole solve over a team: the first width_v<Scalar> problems of a batch, packed into the
// solver's layout in poisoned and guarded memory of exactly solver_size scalars.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "qp/solve.hpp"
#include "support/allocations.hpp"
#include "support/launch.hpp"
#include "support/packed.hpp"
#include "support/qp.hpp"

namespace torchqp::qp {

using support::Problems;

/// Fills Q, G and A with problem `w` of the batch in lane w, padded as qp/data.hpp asks.
template <class Scalar>
void fill_matrices(const Data<Scalar>& data, const support::QpBatch<Element<Scalar>>& batch) {
  using T = Element<Scalar>;
  const Shape& s = data.shape;
  for (int w = 0; w < width_v<Scalar>; ++w) {
    const auto matrix = [&](Scalar* to, const std::vector<T>& from, int rows, int cols,
                            int padded) {
      for (int i = 0; i < padded; ++i)
        for (int j = 0; j < s.np; ++j)
          set(to[i * s.np + j], w,
              i < rows && j < cols ? from[(size_t(w) * rows + i) * cols + j] : T(0));
    };
    for (int i = 0; i < s.np && s.diagonal; ++i)
      set(data.Q[i], w, i < s.n ? batch.Q[w * s.n + i] : T(1));
    for (int i = 0; i < s.np && !s.diagonal; ++i)
      for (int j = 0; j < s.np; ++j) {
        T value = i == j ? 1 : 0;
        if (i < s.n && j < s.n && batch.dims.diagonal) value = i == j ? batch.Q[w * s.n + i] : 0;
        if (i < s.n && j < s.n && !batch.dims.diagonal)
          value = (batch.Q[(w * s.n + i) * s.n + j] + batch.Q[(w * s.n + j) * s.n + i]) / 2;
        set(data.Q[i * s.np + j], w, value);
      }
    matrix(data.G, batch.G, s.m, s.n, s.mp);
    matrix(data.A, batch.A, s.p, s.n, s.pp);
  }
}

/// Fills all data of a solve.
template <class Scalar>
void fill_data(const Data<Scalar>& data, const support::QpBatch<Element<Scalar>>& batch) {
  using T = Element<Scalar>;
  const Shape& s = data.shape;
  const T infinity = std::numeric_limits<T>::infinity();
  fill_matrices(data, batch);
  for (int w = 0; w < width_v<Scalar>; ++w) {
    for (int i = 0; i < s.np; ++i) set(data.q[i], w, i < s.n ? batch.q[w * s.n + i] : T(0));
    for (int i = 0; i < s.pp; ++i) set(data.b[i], w, i < s.p ? batch.b[w * s.p + i] : T(0));
    const auto sides = [&](Scalar* to, const std::vector<T>& rows, const std::vector<T>& bounds,
                           T none) {
      for (int i = 0; i < s.k; ++i) {
        const bool row = i < s.mp;
        const int index = row ? i : i - s.mp, length = row ? s.m : s.n;
        const std::vector<T>& from = row ? rows : bounds;
        T value = none;
        if (index < length && !from.empty()) value = from[w * length + index];
        if (std::abs(value) >= T(kInfinity)) value = value > 0 ? infinity : -infinity;
        set(to[i], w, value);
      }
    };
    sides(data.lower, batch.h_lower, batch.lb, -infinity);
    sides(data.upper, batch.h, batch.ub, infinity);
  }
}

/// Per problem: status, iterations, factor_tag, residuals, then z, nu, lam, active and slack
/// without padding, then the factor where it was kept.
constexpr int kStatus = 0, kIterations = 1, kFactorTag = 2, kResiduals = 3, kZ = 7;

struct HowToSolve {
  Settings settings;
  bool keep_factor = false;
  bool warm = false;  ///< from the batch's z0, nu0 and lam0
};

template <class Scalar, class Launch>
Problems<double> run_solver(const Launch& launch, const support::QpBatch<Element<Scalar>>& batch,
                            const HowToSolve& how) {
  using Team = typename Launch::Team;
  using T = Element<Scalar>;
  const Shape shape = Shape::of<Team, Scalar>(batch.dims);
  const int64_t size = solver_size<Team, Scalar>(batch.dims);
  support::Scratch scratch;
  Arena<Scalar> arena{scratch.get<T, Scalar>(size)};
  Solver<Scalar> solver(shape, how.settings, arena);
  EXPECT_EQ(arena.used, size);
  fill_data(solver.data, batch);
  if (how.warm)
    for (int w = 0; w < width_v<Scalar>; ++w) {
      const auto put = [&](Scalar* to, const std::vector<T>& from, int length, int padded) {
        for (int i = 0; i < padded; ++i)
          set(to[i], w, i < length && !from.empty() ? from[w * length + i] : T(0));
      };
      put(solver.warm_z, batch.z0, shape.n, shape.np);
      put(solver.warm_nu, batch.nu0, shape.p, shape.pp);
      put(solver.warm_lam, batch.lam0, shape.m, shape.mp);
      put(solver.warm_lam + shape.mp, {}, shape.n, shape.k - shape.mp);
    }

  Problems<double> outputs(width_v<Scalar>);
  const int64_t before = support::allocations();
  launch([&](const auto& team) {
    solve(team, solver, how.warm, Prepared::kNothing, false, how.keep_factor);
  });
  // A grid of fibers notes each barrier once; the product path must not allocate at all.
  if constexpr (std::is_same_v<Team, SerialTeam>) {
    EXPECT_EQ(support::allocations(), before);
  }
  EXPECT_TRUE(scratch.intact());

  const Result<Scalar>& result = solver.result;
  for (int w = 0; w < width_v<Scalar>; ++w) {
    std::vector<double>& out = outputs[w];
    const auto append = [&](const Scalar* from, int count) {
      for (int i = 0; i < count; ++i) out.push_back(static_cast<double>(get(from[i], w)));
    };
    append(result.status, 1), append(result.iterations, 1), append(result.factor_tag, 1);
    append(result.residuals, 4);
    append(result.z, shape.n), append(result.nu, shape.p);
    for (const Scalar* array : {result.lam, result.active}) {
      append(array, shape.m);
      if (shape.bounds) append(array + shape.mp, shape.n);
    }
    append(result.slack, shape.m);
    if (!how.keep_factor || !is_solved(static_cast<Status>(out[kStatus]))) continue;
    const auto triangle = [&](const Scalar* from, int stride, int size) {
      for (int i = 0; i < size; ++i) append(from + i * stride, i + 1);
    };
    if (out[kFactorTag] > 0) {
      const DualFactor<Scalar>& factor = solver.dual.schur.factor;
      triangle(factor.L, shape.np, shape.n), append(factor.inverse_L, shape.n);
      triangle(factor.K, factor.rows, shape.p), append(factor.inverse_K, shape.p);
      const int held = static_cast<int>(get(factor.held.count[0], w));
      append(factor.held.row, held);
      for (int i = 0; i < held; ++i) append(factor.K + (shape.pp + i) * factor.rows, shape.p);
      triangle(solver.dual.schur.trailing(), factor.rows, held);
      append(factor.inverse_K + shape.pp, held);
    } else if (out[kFactorTag] < 0) {
      triangle(solver.condensed.H, shape.np, shape.n), append(solver.condensed.inverse_H, shape.n);
      triangle(solver.condensed.S, shape.pp, shape.p), append(solver.condensed.inverse_S, shape.p);
    }
  }
  return outputs;
}

}  // namespace torchqp::qp
