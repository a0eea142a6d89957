// The list of rows that hold, the two ways to factor on them, and pivoting from guess to solution.
#include "qp/pivoting.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "qp/run_solver.hpp"

namespace torchqp::qp {
namespace {

using P = Pack<double, 4>;

/// Problems of the dual form in a solver that is set up up to T and y0.
struct Prepared4 {
  support::QpBatch<double> batch;
  std::vector<P> memory;
  Arena<P> arena;
  Solver<P> solver;

  Prepared4(const support::QpBatch<double>& problems)
      : batch(problems),
        memory(solver_size<SerialTeam, P>(batch.dims)),
        arena{memory.data()},
        solver(Shape::of<SerialTeam, P>(batch.dims), default_settings<double>(), arena) {
    fill_data(solver.data, batch);
    const SerialTeam team;
    solver.scale.reset(team, solver.data.shape);
    reset_iterate(team, solver.data.shape, solver.it);
    solver.dual.setup(team);
    solver.dual.scale_sides(team);
    solver.dual.schur.form(team, solver.data);
    solver.dual.start(team, solver.it);
  }
};

/// Families whose problems go through the dual form.
std::vector<support::Family> dual_families() {
  std::vector<support::Family> result;
  for (const support::Family& family : support::families()) {
    const bool bounds = family.lb || family.ub;
    if (!bounds && !family.diagonal && !family.singular && family.m > 0 &&
        family.m <= 2 * family.n) {
      result.push_back(family);
    }
  }
  return result;
}

TEST(ActiveRows, ListsEachProblemsRowsInOrder) {
  constexpr int kRows = 7, kCapacity = 8;
  std::vector<P> memory(2 * kCapacity + 2), active(kCapacity, broadcast<P>(1));
  Arena<P> arena{memory.data()};
  const ActiveRows<P> held(kCapacity, arena);
  const std::vector<std::vector<int>> rows = {{}, {0, 3, 6}, {0, 1, 2, 3, 4, 5, 6}, {5}};
  for (int i = 0; i < kRows; ++i) active[i] = broadcast<P>(0);
  for (int w = 0; w < 4; ++w)
    for (int i : rows[w]) set(active[i], w, w % 2 == 0 ? 1.0 : -1.0);
  held.list(SerialTeam{}, active.data(), kRows, kCapacity);
  const int tile = tile_size_v<SerialTeam, P>;
  EXPECT_EQ(held.longest<SerialTeam>(), padded(7, tile));
  for (int w = 0; w < 4; ++w) {
    ASSERT_EQ(get(held.count[0], w), rows[w].size());
    for (size_t r = 0; r < rows[w].size(); ++r) {
      EXPECT_EQ(get(held.row[r], w), rows[w][r]);
      EXPECT_EQ(get(held.place[rows[w][r]], w), r);
      EXPECT_TRUE(get_mask(held.has(static_cast<int>(r)), w));
    }
    EXPECT_FALSE(get_mask(held.has(static_cast<int>(rows[w].size())), w));
  }
}

TEST(DualSchur, TheFactorFromTheDataHasTheBitsOfTheOneFromT) {
  size_t compared = 0;
  for (const support::Family& family : dual_families()) {
    Prepared4 problem(support::random_batch<double>(family, 4, 71));
    const DualSchur<P>& schur = problem.solver.dual.schur;
    const Shape& s = problem.solver.data.shape;
    P* active = problem.solver.it.active;
    for (int i = 0; i < s.mp; ++i)
      for (int w = 0; w < 4; ++w) set(active[i], w, i < s.m && (i + w) % 3 == 0 ? 1.0 : 0.0);
    const auto factor = [&] {
      std::vector<double> numbers;
      for (int w = 0; w < 4; ++w) {
        const int count = static_cast<int>(get(schur.factor.held.count[0], w));
        for (int i = 0; i < count; ++i) {
          for (int j = 0; j <= s.pp + i; ++j)
            numbers.push_back(get(schur.factor.K[(s.pp + i) * schur.factor.rows + j], w));
          numbers.push_back(get(schur.factor.inverse_K[s.pp + i], w));
        }
      }
      return numbers;
    };
    schur.factor_held(SerialTeam{}, active);
    schur.couple_held(SerialTeam{});
    const std::vector<double> from_T = factor();
    schur.factor_rows(SerialTeam{}, problem.solver.data, active);
    EXPECT_TRUE(support::same_bits(factor(), from_T)) << family.name;
    compared += from_T.size();
  }
  EXPECT_GT(compared, 100u);
}

TEST(DualForm, StartsFromTheSolutionWithoutRows) {
  int equalities = 0;
  for (const support::Family& family : dual_families()) {
    const Prepared4 problem(support::random_batch<double>(family, 4, 74));
    const support::QpBatch<double>& batch = problem.batch;
    const Data<P>& data = problem.solver.data;
    const P* z = problem.solver.it.z;
    const int n = family.n;
    for (int w = 0; w < 4; ++w) {
      for (int i = 0; i < family.p; ++i, ++equalities) {
        double sum = -batch.b[w * family.p + i];
        for (int j = 0; j < n; ++j) sum += batch.A[(w * family.p + i) * n + j] * get(z[j], w);
        EXPECT_NEAR(sum, 0, 1e-10) << family.name;
      }
      for (int i = 0; i < n; ++i) {
        double slope = batch.q[w * n + i];
        for (int j = 0; j < n; ++j) slope += get(data.Q[i * data.shape.np + j], w) * get(z[j], w);
        for (int j = 0; j < family.p; ++j)
          slope += batch.A[(w * family.p + j) * n + i] * get(problem.solver.it.nu[j], w);
        EXPECT_NEAR(slope, 0, 1e-10) << family.name;
      }
      for (int i = 0; i < family.m; ++i) {  // of the scaled rows
        double sum = 0;
        for (int j = 0; j < n; ++j) sum += get(data.G[i * data.shape.np + j], w) * get(z[j], w);
        EXPECT_NEAR(get(problem.solver.dual.y0[i], w), sum, 1e-10) << family.name;
      }
    }
  }
  EXPECT_GT(equalities, 0);
}

TEST(Pivoting, EndsWhereNoRowIsInError) {
  ASSERT_GE(dual_families().size(), 2u);
  for (const support::Family& family : dual_families()) {
    const support::QpBatch<double> all = support::random_batch<double>(family, 80, 72);
    int ended = 0;
    for (int64_t first = 0; first < all.size; first += 4) {
      Prepared4 problem(all.pick({first, first + 1, first + 2, first + 3}));
      const Iterate<P>& it = problem.solver.it;
      const Shape& s = problem.solver.data.shape;
      guess_violated(SerialTeam{}, problem.solver.dual, it);
      P rounds = broadcast<P>(0);
      const auto settled = pivot(SerialTeam{}, problem.solver.dual, it, kPivotRounds, kPivotStall,
                                 broadcast_mask<P>(true), rounds);
      for (int w = 0; w < 4; ++w) {
        EXPECT_GE(get(rounds, w), 1);
        EXPECT_LE(get(rounds, w), kPivotRounds);
        if (!get_mask(settled, w)) continue;
        ++ended;
        for (int i = 0; i < s.m; ++i) {
          const double lam = get(it.lam[i], w), y = get(it.y[i], w);
          const double upper = get(problem.solver.data.upper[i], w);
          const double lower = get(problem.solver.data.lower[i], w);
          const double side = get(it.active[i], w);
          const double size = 1e-9 * (1 + std::abs(y));
          EXPECT_LE(y, upper + size) << family.name;
          EXPECT_GE(y, lower - size) << family.name;
          if (side == 0) {
            EXPECT_EQ(lam, 0) << family.name;
          } else if (get(it.equal[i], w) == 0) {
            EXPECT_GE(side * lam, -1e-9 * (1 + std::abs(lam))) << family.name;
            EXPECT_NEAR(y, side > 0 ? upper : lower, size) << family.name;
          }
        }
      }
    }
    // With more rows than freedom vertices are likely, and pivoting may circle around them.
    const bool vertices = family.m > family.n - family.p;
    EXPECT_GE(ended, all.size * (vertices ? 6 : 9) / 10) << family.name;
  }
}

TEST(Pivoting, ARowThatDependsOnOthersIsLeftOut) {
  support::QpBatch<double> batch = support::random_batch<double>(dual_families()[1], 4, 73);
  const int n = batch.dims.n, m = batch.dims.m;
  ASSERT_GE(m, 2);
  // Row 1 is row 0 again, twice as long; both are violated at the start and hold at the solution.
  for (int w = 0; w < 4; ++w) {
    for (int j = 0; j < n; ++j) batch.G[(w * m + 1) * n + j] = 2 * batch.G[w * m * n + j];
  }
  Prepared4 problem(batch);
  const Iterate<P>& it = problem.solver.it;
  P* upper = problem.solver.data.upper;
  for (int i = 0; i < m; ++i) {
    upper[i] = problem.solver.dual.y0[i] + broadcast<P>(i < 2 ? -0.5 : 1e6);
    if (i == 1) upper[1] = problem.solver.dual.y0[1] - broadcast<P>(0.5);
  }
  guess_violated(SerialTeam{}, problem.solver.dual, it);
  P rounds = broadcast<P>(0);
  const auto settled = pivot(SerialTeam{}, problem.solver.dual, it, kPivotRounds, kPivotStall,
                             broadcast_mask<P>(true), rounds);
  for (int w = 0; w < 4; ++w) {
    ASSERT_TRUE(get_mask(settled, w));
    EXPECT_EQ(std::abs(get(it.active[0], w)) + std::abs(get(it.active[1], w)), 1)
        << "one of the two rows holds for both";
    EXPECT_EQ(get(problem.solver.dual.schur.factor.held.count[0], w), 1)
        << "the factor is that of the rows that hold";
  }
}

}  // namespace
}  // namespace torchqp::qp
