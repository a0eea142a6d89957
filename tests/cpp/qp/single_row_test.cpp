// The direct method for a diagonal Q, bounds and at most one row, against the sorted breakpoints of
// the row's multiplier in long double, and against the general method.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "qp/run_adjoint.hpp"

namespace torchqp::qp {
namespace {

using support::QpBatch;
using Real = long double;
using PackOfFour = Pack<double, 4>;

constexpr double kNone = 1e30;

struct Kind {
  const char* name;
  int m, p;
  bool h_lower, h_upper, lb, ub;
  bool ones;  ///< a = (1, .., 1), lb = 0
};
constexpr Kind kKinds[] = {
    {"free", 0, 0, false, false, false, false, false},
    {"box", 0, 0, false, false, true, true, false},
    {"lower bounds", 0, 0, false, false, true, false, false},
    {"simplex", 0, 1, false, false, true, false, true},
    {"capped simplex", 0, 1, false, false, true, true, true},
    {"hyperplane", 0, 1, false, false, false, false, false},
    {"knapsack", 0, 1, false, false, true, true, false},
    {"upper bounds and a row", 0, 1, false, false, false, true, false},
    {"budget", 1, 0, false, true, true, true, false},
    {"least return", 1, 0, true, false, true, false, true},
    {"two-sided row", 1, 0, true, true, true, true, false},
    {"slab", 1, 0, true, true, false, false, false},
};

/// How numbers are drawn: from continuous distributions, as small integers (ties and degenerate
/// vertices), or with variables, row and objective in very different units.
enum class Style { kReal, kInteger, kScaled };

template <class T>
QpBatch<T> draw_batch(const Kind& kind, Style style, int n, int64_t size, unsigned seed) {
  QpBatch<T> batch;
  batch.size = size;
  batch.dims = {n, kind.m, kind.p, kind.h_lower, kind.h_upper, kind.lb, kind.ub, true};
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  const auto draw = [&] {
    return style == Style::kInteger ? std::round(2 * normal(generator)) : normal(generator);
  };
  const auto gap = [&] {
    return style == Style::kInteger ? std::floor(3 * uniform(generator)) : uniform(generator);
  };
  const auto unit = [&](double decades) {
    return style == Style::kScaled ? std::exp2(std::round(decades * normal(generator))) : 1.0;
  };
  for (int64_t k = 0; k < size; ++k) {
    const double row_unit = unit(6), cost_unit = unit(6);
    double inside_value = 0;
    for (int i = 0; i < n; ++i) {
      const double of_z = unit(4);
      const double D = style == Style::kInteger ? 1 + std::floor(2 * uniform(generator))
                                                : 0.1 + uniform(generator);
      batch.Q.push_back(static_cast<T>(cost_unit * D / (of_z * of_z)));
      batch.q.push_back(static_cast<T>(cost_unit * 2 * draw() / of_z));
      double inside = draw(), below = inside - gap(), above = inside + gap();
      if (kind.ones) inside = std::abs(inside), below = 0, above = inside + gap();
      const double which = uniform(generator);
      if (!kind.ones && which < 0.1) below = above = inside;
      if (which > 0.9) above = kNone / of_z;
      if (!kind.ones && which > 0.8 && which < 0.9) below = -kNone / of_z;
      if (kind.lb) batch.lb.push_back(static_cast<T>(below * of_z));
      if (kind.ub) batch.ub.push_back(static_cast<T>(above * of_z));
      const T a = static_cast<T>(row_unit * (kind.ones ? 1.0 : which < 0.3 ? 0.0 : draw()) / of_z);
      (kind.p > 0 ? batch.A : batch.G).push_back(a);
      inside_value += double(a) * double(static_cast<T>(inside * of_z));
    }
    if (kind.p + kind.m == 0) batch.G.clear();
    if (kind.p > 0) batch.b.push_back(static_cast<T>(inside_value));
    const bool equal = uniform(generator) < 0.2 && kind.h_lower && kind.h_upper;
    const double spread = equal ? 0 : row_unit * gap();
    if (kind.m > 0 && kind.h_upper) batch.h.push_back(static_cast<T>(inside_value + spread));
    if (kind.m > 0 && kind.h_lower) batch.h_lower.push_back(static_cast<T>(inside_value - spread));
  }
  return batch;
}

/// The same problems with Q as a matrix: they take the general method.
template <class T>
QpBatch<T> as_matrices(QpBatch<T> batch) {
  const int n = batch.dims.n;
  const std::vector<T> diagonal = batch.Q;
  batch.Q.assign(diagonal.size() * n, T(0));
  for (size_t i = 0; i < diagonal.size(); ++i) batch.Q[i * n + i % n] = diagonal[i];
  batch.dims.diagonal = false;
  return batch;
}

/// One problem in long double.
struct Problem {
  std::vector<Real> D, q, a, lb, ub;
  Real row_lower = -INFINITY, row_upper = INFINITY;

  template <class T>
  Problem(const QpBatch<T>& batch, int64_t k) {
    const int n = batch.dims.n;
    const auto at = [&](const std::vector<T>& from, int i, Real absent) {
      const Real value = from.empty() ? absent : from[k * n + i];
      return std::abs(value) >= Real(kInfinity) ? value * Real(INFINITY) : value;
    };
    for (int i = 0; i < n; ++i) {
      D.push_back(batch.Q[k * n + i]), q.push_back(batch.q[k * n + i]);
      a.push_back(batch.dims.p > 0 ? at(batch.A, i, 0) : at(batch.G, i, 0));
      lb.push_back(at(batch.lb, i, -INFINITY)), ub.push_back(at(batch.ub, i, INFINITY));
    }
    if (batch.dims.p > 0) row_lower = row_upper = batch.b[k];
    if (!batch.h.empty()) row_upper = batch.h[k];
    if (!batch.h_lower.empty()) row_lower = batch.h_lower[k];
  }

  Real z(size_t i, Real nu) const {
    return std::min(std::max(-(q[i] + a[i] * nu) / D[i], lb[i]), ub[i]);
  }
  Real value(Real nu) const {
    Real sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * z(i, nu);
    return sum;
  }

  /// nu with value(nu) = target: between two neighbours of the sorted breakpoints.
  Real root(Real target) const {
    std::vector<Real> points;
    for (size_t i = 0; i < a.size(); ++i)
      for (Real bound : {lb[i], ub[i]})
        if (a[i] != 0 && std::isfinite(bound)) points.push_back(-(q[i] + D[i] * bound) / a[i]);
    points.push_back(0);
    std::sort(points.begin(), points.end());
    Real reach = 1 + points.back() - points.front();
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i] != 0) reach = std::max(reach, 2 * std::abs(q[i] / a[i]));
    points.insert(points.begin(), points.front() - reach);
    points.push_back(points.back() + reach);
    // The piece ends at points[i]; the first and the last go on for ever.
    const auto end = std::partition_point(points.begin() + 1, points.end() - 1,
                                          [&](Real point) { return value(point) > target; });
    const size_t i = end - points.begin();
    const Real from = value(points[i - 1]), to = value(points[i]);
    if (from == to) return points[i];
    return points[i - 1] + (from - target) / (from - to) * (points[i] - points[i - 1]);
  }

  std::vector<Real> solution() const {
    const Real target = std::min(std::max(value(0), row_lower), row_upper);
    const Real nu = value(0) == target ? 0 : root(target);
    std::vector<Real> result;
    for (size_t i = 0; i < a.size(); ++i) result.push_back(z(i, nu));
    return result;
  }
};

/// Says what is wrong with a solution of run_solver, "" when nothing is.
std::string judge(const Problem& problem, const Dims& dims, const std::vector<double>& out,
                  Real tolerance) {
  const int n = dims.n, sides = dims.m + (dims.bounds() ? n : 0);
  const double *z = out.data() + kZ, *lam = z + n + dims.p, *active = lam + sides;
  if (out[kStatus] != 0) return "status " + std::to_string(out[kStatus]);
  if (out[kIterations] != 0) return "the interior point was needed";
  for (int r = 0; r < 4; ++r)
    if (!(out[kResiduals + r] <= 50 * tolerance)) return "residual " + std::to_string(r);
  const Real nu = dims.p + dims.m > 0 ? z[n] : 0;
  const std::vector<Real> expected = problem.solution();
  // What rounding of the row's sum does to nu, relative to the rounding of one operation.
  Real noise = 0, slope = 0, value = 0, size = 0, rounded = 0;
  for (int i = 0; i < n; ++i) {
    const Real w = std::abs(problem.a[i]) / problem.D[i];
    noise += w * (std::abs(problem.D[i] * z[i]) + std::abs(problem.q[i]));
    slope += w * std::abs(problem.a[i]);
  }
  if (slope > 0) noise /= slope;
  for (int i = 0; i < n; ++i) {
    const std::string at = " of variable " + std::to_string(i);
    const Real Dz = problem.D[i] * z[i], term = problem.a[i] * nu;
    const Real terms =
        std::abs(Dz) + std::abs(problem.q[i]) + std::abs(term) + std::abs(problem.a[i]) * noise;
    if (!(std::abs(z[i] - expected[i]) <= 100 * tolerance * terms / problem.D[i]))
      return "z" + at + ": " + std::to_string(double(z[i] - expected[i]));
    const double bound = dims.bounds() ? lam[dims.m + i] : 0;
    if (!(std::abs(Dz + problem.q[i] + term + bound) <= tolerance * terms))
      return "stationarity" + at;
    if (!(z[i] >= problem.lb[i] && z[i] <= problem.ub[i])) return "bound" + at;
    const int flag = dims.bounds() ? static_cast<int>(active[dims.m + i]) : 0;
    if (bound > 0 && !(z[i] == problem.ub[i] && flag == 1)) return "multiplier > 0" + at;
    if (bound < 0 && !(z[i] == problem.lb[i] && flag == -1)) return "multiplier < 0" + at;
    if (flag != 0 && z[i] != (flag > 0 ? problem.ub[i] : problem.lb[i])) return "side" + at;
    if (problem.lb[i] == problem.ub[i] && flag == 0) return "equality" + at;
    value += problem.a[i] * z[i], size += std::abs(problem.a[i] * z[i]);
    rounded += std::abs(problem.a[i]) * terms / problem.D[i];
  }
  if (dims.p > 0) size += std::abs(problem.row_upper);
  const Real slip = 10 * tolerance * std::max(size, 1e-9 * rounded);  // z may be all rounding
  if (!(value >= problem.row_lower - slip && value <= problem.row_upper + slip)) return "row";
  if (dims.m > 0 && problem.row_lower < problem.row_upper) {
    if (nu > 0 && value < problem.row_upper - slip) return "multiplier of a row below its side";
    if (nu < 0 && value > problem.row_lower + slip) return "multiplier of a row above its side";
    if (active[0] != (nu > 0) - (nu < 0)) return "side of the row";
  }
  return "";
}

template <class Scalar>
void expect_exact(Style style, int rounds, Real tolerance) {
  using T = Element<Scalar>;
  constexpr int kWidth = width_v<Scalar>;
  for (const Kind& kind : kKinds)
    for (int round = 0; round < rounds; ++round) {
      const int n = 2 + (round * 7) % 40;
      const auto batch = draw_batch<T>(kind, style, n, kWidth, 100 + round);
      const auto outputs =
          run_solver<Scalar>(support::SerialLaunch{}, batch, {default_settings<T>(), true});
      for (int w = 0; w < kWidth; ++w)
        ASSERT_EQ(judge(Problem(batch, w), batch.dims, outputs[w], tolerance), "")
            << kind.name << ", n = " << n << ", round " << round << ", problem " << w;
    }
}

TEST(SingleRow, IsExactOnRandomProblems) {
  expect_exact<PackOfFour>(Style::kReal, 250, 2e-14);
}
TEST(SingleRow, IsExactAtTiesAndVertices) {
  expect_exact<PackOfFour>(Style::kInteger, 250, 2e-14);
}
TEST(SingleRow, IsExactInAnyUnits) {
  expect_exact<PackOfFour>(Style::kScaled, 250, 2e-13);
}
TEST(SingleRow, IsExactInSinglePrecision) {
  expect_exact<float>(Style::kReal, 200, 4e-6);
}

TEST(SingleRow, IsExactWhereTheMultiplierIsLargeAndTheRowLong) {
  for (const Kind& kind : kKinds)
    for (int n : {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 100, 1500}) {
      if (kind.p == 0) continue;
      auto batch = draw_batch<double>(kind, Style::kReal, n, 4, 40 + n);
      // The solution stays: the row's multiplier takes it all.
      for (size_t i = 0; i < batch.q.size(); ++i) batch.q[i] += 0x1p30 * batch.A[i];
      const auto outputs = run_solver<PackOfFour>(support::SerialLaunch{}, batch,
                                                  {default_settings<double>(), true});
      for (int w = 0; w < 4; ++w)
        EXPECT_EQ(judge(Problem(batch, w), batch.dims, outputs[w], 2e-14), "")
            << kind.name << ", n = " << n << ", problem " << w;
    }
}

/// sum z = count, 0 <= z <= 1 (or z >= 0), with one curvature and slope each.
QpBatch<double> selection(const std::vector<double>& D, const std::vector<double>& q, double count,
                          bool capped) {
  const int n = static_cast<int>(D.size());
  QpBatch<double> batch;
  batch.size = 1;
  batch.dims = {n, 0, 1, false, false, true, capped, true};
  batch.Q = D, batch.q = q, batch.b = {count};
  batch.A.assign(n, 1), batch.lb.assign(n, 0), batch.ub.assign(capped ? n : 0, 1);
  return batch;
}

TEST(SingleRow, BreakpointsAreSkippedWhereNewtonMeetsThemOneByOne) {
  const HowToSolve how{default_settings<double>()};
  const support::SerialLaunch serial;
  // Stairs: every variable rises from 0 to 1 within 1e-6 or so.
  for (double count : {1.5, 10.0, 300.25, 500.0}) {
    std::mt19937 generator(3);
    std::normal_distribution<double> normal;
    std::vector<double> q(1000);
    for (double& x : q) x = normal(generator);
    const auto batch = selection(std::vector<double>(1000, 1e-6), q, count, true);
    const auto out = run_solver<double>(serial, batch, how)[0];
    EXPECT_EQ(judge(Problem(batch, 0), batch.dims, out, 2e-14), "") << count;
  }
  // Variable i leaves at -2^i with weight 2^i, so that the last one in decides.
  std::vector<double> D, q;
  for (int i = 0; i < 100; ++i) D.push_back(std::exp2(-i)), q.push_back(std::exp2(i));
  const auto batch = selection(D, q, 1, false);
  const auto out = run_solver<double>(serial, batch, how)[0];
  EXPECT_EQ(judge(Problem(batch, 0), batch.dims, out, 2e-14), "");
}

/// Variables at a bound of zero are left out once nu has passed them by. Those whose bound is another,
/// which a weight below zero brings back, or which a step too far has closed are not.
TEST(SingleRow, VariablesThatMayComeBackAreNotLeftOut) {
  const HowToSolve how{default_settings<double>()};
  constexpr int n = 80;
  for (int round = 0; round < 50; ++round) {
    std::mt19937 generator(round);
    std::normal_distribution<double> normal;
    std::vector<double> q(n);
    for (double& x : q) x = normal(generator);
    const std::vector<double> ones(n, 1);
    auto raised = selection(ones, q, 2 + 0.25 * n, false);
    raised.lb.assign(n, 0.25);
    auto signs = selection(ones, q, 3, false);
    for (int i = 0; i < n; i += 3) signs.A[i] = -1;
    const auto capped = selection(ones, q, 1 + round, true);
    for (const auto& batch : {raised, signs, capped}) {
      const auto out = run_solver<double>(support::SerialLaunch{}, batch, how)[0];
      EXPECT_EQ(judge(Problem(batch, 0), batch.dims, out, 2e-14), "") << round;
    }
  }
}

TEST(SingleRow, ASecondProjectionLeavesZerosZero) {
  const HowToSolve how{default_settings<double>()};
  for (const Kind& kind : kKinds) {
    if (!kind.ones || kind.p == 0) continue;
    for (int round = 0; round < 100; ++round) {
      auto batch = draw_batch<double>(kind, Style::kReal, 30, 1, 700 + round);
      std::fill(batch.Q.begin(), batch.Q.end(), 1.0);
      const auto first = run_solver<double>(support::SerialLaunch{}, batch, how)[0];
      for (int i = 0; i < 30; ++i) batch.q[i] = -first[kZ + i];
      const auto second = run_solver<double>(support::SerialLaunch{}, batch, how)[0];
      for (int i = 0; i < 30; ++i) {
        EXPECT_NEAR(second[kZ + i], first[kZ + i], 1e-14) << kind.name << ", round " << round;
        if (first[kZ + i] == 0) {
          EXPECT_EQ(second[kZ + i], 0) << kind.name << ", round " << round;
        }
        const bool full = kind.ub && first[kZ + i] == batch.ub[i];
        if (full) {
          EXPECT_EQ(second[kZ + i], batch.ub[i]) << kind.name << ", round " << round;
        }
      }
    }
  }
}

/// Knapsacks in four variables, most of which the direct method must leave to the general one; the
/// first two it solves, and the last is infeasible by less than the general method's tolerance.
template <class T>
QpBatch<T> troubled_knapsacks() {
  constexpr int n = 4, kCount = 13;
  QpBatch<T> batch;
  batch.size = kCount;
  batch.dims = {n, 0, 1, false, false, true, true, true};
  batch.Q.assign(kCount * n, T(1)), batch.A.assign(kCount * n, T(1));
  batch.lb.assign(kCount * n, T(0)), batch.ub.assign(kCount * n, T(1));
  batch.b.assign(kCount, T(1));
  for (int i = 0; i < kCount * n; ++i) batch.q.push_back(static_cast<T>(std::sin(i + 1.0)));
  const T infinity = std::numeric_limits<T>::infinity();
  const auto fill = [&](std::vector<T>& values, int k, T value) {
    std::fill_n(values.begin() + k * n, n, value);
  };
  batch.b[1] = 4;                          // the upper corner
  batch.b[2] = T(-0.5);                    // infeasible
  batch.b[3] = 5;                          // infeasible
  fill(batch.A, 4, T(0)), batch.b[4] = 0;  // no row
  fill(batch.A, 5, T(0));                  // 0 = 1
  batch.q[6 * n + 2] = std::numeric_limits<T>::quiet_NaN();
  batch.A[7 * n] = infinity;
  batch.Q[8 * n + 1] = 0;  // convex still
  // Not convex, and stationary inside the bounds.
  batch.Q[9 * n + 3] = -1, batch.q[9 * n + 3] = T(0.5), fill(batch.A, 9, T(0)), batch.b[9] = 0;
  batch.lb[10 * n] = 2;                                   // bounds that cross
  fill(batch.Q, 11, T(0)), fill(batch.ub, 11, T(kNone));  // unbounded: z_0 rises, z_1 falls
  fill(batch.lb, 11, T(-kNone)), batch.q[11 * n] = -1, batch.q[11 * n + 1] = 1;
  batch.b[12] = 4 * (1 + 40 * std::numeric_limits<T>::epsilon());
  return batch;
}

TEST(SingleRow, WhatItLeavesHasTheStatusOfTheGeneralMethod) {
  const auto check = [](const auto& batch) {
    using T = std::decay_t<decltype(batch.q[0])>;
    const auto dense = as_matrices(batch);
    for (int k = 0; k < batch.size; ++k) {
      const support::SerialLaunch serial;
      const HowToSolve how{default_settings<T>(), true};
      const auto direct = run_solver<T>(serial, batch.pick({k}), how)[0];
      const auto general = run_solver<T>(serial, dense.pick({k}), how)[0];
      EXPECT_EQ(direct[kStatus], general[kStatus]) << "member " << k;
      if (k < 2) {
        EXPECT_EQ(direct[kIterations], 0) << "member " << k;
      }
      if (k == 12) {
        EXPECT_EQ(direct[kStatus], 0);
        EXPECT_GT(direct[kIterations], 0);
      }
      for (int i = 0; i < batch.dims.n && is_solved(static_cast<Status>(general[kStatus])); ++i)
        EXPECT_NEAR(direct[kZ + i], general[kZ + i], sizeof(T) == 8 ? 1e-7 : 1e-3) << k;
    }
  };
  check(troubled_knapsacks<double>());
  check(troubled_knapsacks<float>());
}

/// Solution and derivative of every problem have the serial bits on teams and in any pack.
template <class Scalar>
void expect_same_bits(const QpBatch<Element<Scalar>>& batch, const std::string& label) {
  using T = Element<Scalar>;
  constexpr int kWidth = width_v<Scalar>;
  const support::SerialLaunch serial;
  const HowToSolve how{default_settings<T>(), true};
  const auto solved = run_solver<Scalar>(serial, batch, how);
  const AdjointInput<T> input = adjoint_input<T>(batch.dims, solved, 5);
  const auto derived = run_adjoint<Scalar>(serial, batch, input);
  support::for_each_fiber_launch([&](const auto& launch, const std::string& description) {
    const auto team = run_solver<Scalar>(launch, batch, how);
    const auto team_derived = run_adjoint<Scalar>(launch, batch, input);
    for (int w = 0; w < kWidth; ++w) {
      EXPECT_TRUE(support::same_bits(team[w], solved[w])) << label << ", " << description;
      EXPECT_TRUE(support::same_bits(team_derived[w], derived[w])) << label << ", " << description;
    }
  });
  for (int w = 0; w < kWidth; ++w) {
    for (double x : derived[w]) {
      if (!input.live[w]) {
        EXPECT_EQ(x, 0) << label << ", problem " << w;
      }
    }
    const auto alone = run_solver<T>(serial, batch.pick({w}), how);
    EXPECT_TRUE(support::same_bits(alone[0], solved[w])) << label << ", problem " << w;
    const AdjointInput<T> one = {
        {input.g_z[w]}, {input.g_nu[w]}, {input.g_lam[w]}, {input.active[w]}, {input.live[w]}};
    const auto alone_derived = run_adjoint<T>(serial, batch.pick({w}), one);
    EXPECT_TRUE(support::same_bits(alone_derived[0], derived[w])) << label << ", problem " << w;
  }
}

template <class Scalar>
class SingleRowOnTeams : public ::testing::Test {};
using Scalars = ::testing::Types<float, double, PackOfFour>;
TYPED_TEST_SUITE(SingleRowOnTeams, Scalars);

TYPED_TEST(SingleRowOnTeams, EveryKindHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (const Kind& kind : kKinds)
    for (int n : {2, 5, 33})
      for (Style style : {Style::kReal, Style::kInteger})
        expect_same_bits<TypeParam>(draw_batch<T>(kind, style, n, width_v<TypeParam>, 7),
                                    kind.name);
}

TYPED_TEST(SingleRowOnTeams, WhatIsLeftToTheGeneralMethodStaysAlone) {
  using T = Element<TypeParam>;
  const auto batch = troubled_knapsacks<T>();
  for (std::vector<int64_t> pack : std::vector<std::vector<int64_t>>{
           {0, 2, 1, 5}, {1, 1, 3, 0}, {4, 6, 0, 7}, {8, 0, 9, 10}, {11, 8, 1, 4}}) {
    pack.resize(width_v<TypeParam>);
    expect_same_bits<TypeParam>(batch.pick(pack), "pack of member " + std::to_string(pack[0]));
  }
}

/// Largest residual of the linearised system at `d`, each relative to the terms of its equation;
/// 0 where the system is singular.
Real derivative_error(const Problem& problem, const Dims& dims, const AdjointInput<double>& input,
                      const std::vector<double>& d) {
  const int n = dims.n;
  const double *d_z = d.data(), *d_bound = d_z + n + dims.p + dims.m;
  const bool held = dims.p > 0 || (dims.m > 0 && input.active[0][0] != 0);
  const Real d_row = dims.p + dims.m > 0 ? d_z[n] : 0;
  if (!held && d_row != 0) return INFINITY;
  const Real g_row = dims.p > 0 ? input.g_nu[0][0] : dims.m > 0 ? input.g_lam[0][0] : 0;
  const auto at_bound = [&](int i) { return dims.bounds() && input.active[0][dims.m + i] != 0; };
  // What rounding of the row's sum does to d_row, relative to the rounding of one operation.
  Real noise = std::abs(g_row), slope = 0;
  for (int i = 0; i < n; ++i) {
    const Real w = problem.a[i] / problem.D[i], g = input.g_z[0][i];
    noise += at_bound(i) ? std::abs(problem.a[i] * input.g_lam[0][dims.m + i]) : std::abs(w * g);
    slope += at_bound(i) ? 0 : w * problem.a[i];
  }
  if (held && slope == 0) return 0;  // the bounds leave the row no freedom: not for this method
  Real error = 0, value = held ? g_row : 0, size = std::abs(value);
  for (int i = 0; i < n; ++i) {
    const Real Dz = problem.D[i] * d_z[i], term = problem.a[i] * d_row;
    const Real bound = at_bound(i) ? d_bound[i] : 0, g = input.g_z[0][i];
    Real terms = std::abs(Dz) + std::abs(term) + std::abs(bound) + std::abs(g);
    if (held) terms += std::abs(problem.a[i]) * noise / slope;
    error = std::max(error, std::abs(Dz + term + bound + g) / terms);
    if (at_bound(i) && d_z[i] != -input.g_lam[0][dims.m + i]) return INFINITY;
    if (dims.bounds() && !at_bound(i) && d_bound[i] != 0) return INFINITY;
    value += problem.a[i] * d_z[i], size += std::abs(problem.a[i]) * terms / problem.D[i];
  }
  return held && size > 0 ? std::max(error, std::abs(value) / size) : error;
}

TEST(SingleRow, TheDerivativeSolvesItsSystemAndIsThatOfTheGeneralMethod) {
  const support::SerialLaunch serial;
  for (const Kind& kind : kKinds)
    for (Style style : {Style::kReal, Style::kScaled})
      for (int round = 0; round < 100; ++round) {
        const int n = 2 + (round * 7) % 40;
        const std::string label =
            std::string(kind.name) + ", n = " + std::to_string(n) + ", " + std::to_string(round);
        const auto batch = draw_batch<double>(kind, style, n, 1, 300 + round);
        const auto solved = run_solver<double>(serial, batch, {default_settings<double>(), true});
        const auto input = adjoint_input<double>(batch.dims, solved, 900 + round);
        const auto direct = run_adjoint<double>(serial, batch, input)[0];
        EXPECT_LE(derivative_error(Problem(batch, 0), batch.dims, input, direct), 1e-13) << label;
        if (style == Style::kScaled) continue;  // too hard for the general method
        const auto general = run_adjoint<double>(serial, as_matrices(batch), input)[0];
        double size = 0, error = 0;
        for (size_t i = 0; i < direct.size(); ++i) {
          size = std::max(size, std::abs(general[i]));
          error = std::max(error, std::abs(direct[i] - general[i]));
        }
        EXPECT_LE(error, 1e-9 * size) << label;
      }
}

TEST(SingleRow, AVertexHasNoDerivativeAndADegenerateOneAFiniteOne) {
  const std::vector<double> g = {1, -2, 3, 0.7};
  auto batch = troubled_knapsacks<double>();
  for (int i = 0; i < 4; ++i) batch.Q[i] = 3, batch.A[i] = 0.7 + 0.1 * i;
  const auto derive = [&](int k, const std::vector<double>& active) {
    const AdjointInput<double> input = {{g}, {{0}}, {{0, 0, 0, 0}}, {active}, {true}};
    return run_adjoint<double>(support::SerialLaunch{}, batch.pick({k}), input)[0];
  };
  // One free variable and the row: exactly zero.
  for (int free = 0; free < 4; ++free) {
    std::vector<double> active(4, -1);
    active[free] = 0;
    const std::vector<double> d = derive(0, active);
    const double d_row = -g[free] / batch.A[free];
    EXPECT_NEAR(d[4], d_row, 1e-14);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(d[i], 0) << i;
      EXPECT_NEAR(d[5 + i], active[i] == 0 ? 0 : -g[i] - batch.A[i] * d_row, 1e-14) << i;
    }
  }
  // None: the row depends on the bounds, and the multipliers are not unique.
  std::vector<double> d = derive(1, {1, 1, 1, 1});
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(d[i], 0, 1e-12) << i;
    EXPECT_NEAR(d[4] + d[5 + i], -g[i], 1e-7) << i;
  }
  // A variable without curvature.
  d = derive(8, {0, 0, 0, 0});
  for (double x : d) EXPECT_TRUE(std::isfinite(x));
  EXPECT_NEAR(d[4], 2, 1e-7);  // row and free variable: 0 d_z + g + d_nu = 0
}

}  // namespace
}  // namespace torchqp::qp
