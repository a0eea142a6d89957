#pragma once
// One whole solve over a team: the first width_v<Scalar> problems of a batch, packed into the
// solver's layout in poisoned and guarded memory of exactly solver_size scalars.

#include <gtest/gtest.h>

#include <vector>

#include "qp/fill_solver.hpp"
#include "qp/solve.hpp"
#include "support/allocations.hpp"
#include "support/launch.hpp"

namespace torchqp::qp {

using support::Problems;

/// What run_solver returns begins with these, per problem.
constexpr int kStatus = 0, kIterations = 1, kFactorTag = 2, kResiduals = 3, kZ = 7;

struct HowToSolve {
  Settings settings;
  bool keep_factor = false;
  bool warm = false;  ///< from the batch's z0, nu0 and lam0
};

template <class Scalar>
void read_result(const Solver<Scalar>& solver, const HowToSolve& how, Problems<double>& outputs) {
  const Shape& shape = solver.data.shape;
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
    // Without a barrier poison is read here, which is no status and no count.
    if (!how.keep_factor || !(out[kStatus] <= static_cast<double>(Status::kSolvedInaccurate)))
      continue;
    const auto triangle = [&](const Scalar* from, int stride, int size) {
      for (int i = 0; i < size; ++i) append(from + i * stride, i + 1);
    };
    if (out[kFactorTag] > 0) {
      const DualFactor<Scalar>& factor = solver.dual.schur.factor;
      triangle(factor.L, shape.np, shape.n), append(factor.inverse_L, shape.n);
      triangle(factor.K, factor.rows, shape.p), append(factor.inverse_K, shape.p);
      const double count = get(factor.held.count[0], w);
      const int held = count <= shape.m ? static_cast<int>(count) : 0;
      append(factor.held.row, held);
      for (int i = 0; i < held; ++i) append(factor.K + (shape.pp + i) * factor.rows, shape.p);
      triangle(solver.dual.schur.trailing(), factor.rows, held);
      append(factor.inverse_K + shape.pp, held);
    } else if (out[kFactorTag] < 0) {
      triangle(solver.condensed.H, shape.np, shape.n), append(solver.condensed.inverse_H, shape.n);
      triangle(solver.condensed.S, shape.pp, shape.p), append(solver.condensed.inverse_S, shape.p);
    }
  }
}

/// Per problem: status, iterations, factor_tag, residuals, then z, nu, lam, active and slack
/// without padding, then the factor where it was kept.
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
    // A grid of fibers notes each barrier once; the product path must not allocate at all.
    if constexpr (std::is_same_v<Team, SerialTeam>) {
      EXPECT_EQ(support::allocations(), before);
    }
    if (team.lane() + 1 == team.size()) read_result(solver, how, outputs);  // all lanes see it
  });
  EXPECT_TRUE(scratch.intact());
  return outputs;
}

}  // namespace torchqp::qp
