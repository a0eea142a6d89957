#pragma once
// One linearised KKT solve over a team: the first width_v<Scalar> problems of a batch with given
// active sides and right-hand sides, in poisoned and guarded memory of exactly adjoint_size
// scalars.

#include "qp/adjoint.hpp"
#include "qp/run_solver.hpp"

namespace torchqp::qp {

/// Right-hand sides and active sets of linearised systems, per problem.
template <class T>
struct AdjointInput {
  Problems<T> g_z, g_nu, g_lam;  ///< [n] [p] [m + n with bounds]
  Problems<T> active;            ///< [m + n with bounds]
  std::vector<bool> live;        ///< false: not solved, the answer is zero
};

/// Random right-hand sides for the solutions in `outputs` of run_solver.
template <class T>
AdjointInput<T> adjoint_input(const Dims& dims, const Problems<double>& outputs, unsigned seed) {
  const int sides = dims.m + (dims.bounds() ? dims.n : 0), count = static_cast<int>(outputs.size());
  AdjointInput<T> input;
  input.g_z = support::random_problems<T>(count, dims.n, seed);
  input.g_nu = support::random_problems<T>(count, dims.p, seed + 100);
  input.g_lam = support::random_problems<T>(count, sides, seed + 200);
  for (const std::vector<double>& out : outputs) {
    const double* active = out.data() + kZ + dims.n + dims.p + sides;
    input.active.emplace_back(active, active + sides);
    input.live.push_back(is_solved(static_cast<Status>(out[kStatus])));
  }
  return input;
}

template <class Scalar>
void read_adjoint(const Adjoint<Scalar>& adjoint, Problems<double>& outputs) {
  const Shape& shape = adjoint.data.shape;
  for (int w = 0; w < width_v<Scalar>; ++w) {
    const auto append = [&](const Scalar* from, int count) {
      for (int i = 0; i < count; ++i) outputs[w].push_back(static_cast<double>(get(from[i], w)));
    };
    append(adjoint.d_z, shape.n), append(adjoint.d_nu, shape.p), append(adjoint.d_lam, shape.m);
    if (shape.bounds) append(adjoint.d_lam + shape.mp, shape.n);
    append(adjoint.info, 1);
  }
}

/// Per problem: d_z, d_nu, d_lam (rows, then bounds), info; without padding.
template <class Scalar, class Launch>
Problems<double> run_adjoint(const Launch& launch, const support::QpBatch<Element<Scalar>>& batch,
                             const AdjointInput<Element<Scalar>>& input) {
  using Team = typename Launch::Team;
  using T = Element<Scalar>;
  const Shape shape = adjoint_shape<Team, Scalar>(batch.dims);
  const int64_t size = adjoint_size<Team, Scalar>(batch.dims);
  support::Scratch scratch;
  Arena<Scalar> arena{scratch.get<T, Scalar>(size)};
  Adjoint<Scalar> adjoint(shape, arena);
  EXPECT_EQ(arena.used, size);
  fill_matrices(adjoint.data, batch);
  for (int w = 0; w < width_v<Scalar>; ++w) {
    const auto put = [&](Scalar* to, const std::vector<T>& from, int offset, int length,
                         int padded) {
      for (int i = 0; i < padded; ++i) set(to[i], w, i < length ? from[offset + i] : T(0));
    };
    put(adjoint.g_z, input.g_z[w], 0, shape.n, shape.np);
    put(adjoint.g_nu, input.g_nu[w], 0, shape.p, shape.pp);
    for (const auto& [to, from] :
         {std::pair(adjoint.g_lam, &input.g_lam[w]), std::pair(adjoint.active, &input.active[w])}) {
      put(to, *from, 0, shape.m, shape.mp);
      if (shape.bounds) put(to + shape.mp, *from, shape.m, shape.n, shape.np);
    }
    set(adjoint.live[0], w, input.live[w]);
    set(adjoint.factor_tag[0], w, T(0));
  }

  Problems<double> outputs(width_v<Scalar>);
  const int64_t before = support::allocations();
  launch([&](const auto& team) {
    solve_adjoint(team, adjoint);
    if constexpr (std::is_same_v<Team, SerialTeam>) {
      EXPECT_EQ(support::allocations(), before);
    }
    if (team.lane() + 1 == team.size()) read_adjoint(adjoint, outputs);  // all lanes see the answer
  });
  EXPECT_TRUE(scratch.intact());
  return outputs;
}

}  // namespace torchqp::qp
