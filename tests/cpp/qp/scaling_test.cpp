// Equilibration: exact, and even.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "qp/run_solver.hpp"

namespace torchqp::qp {
namespace {

template <class T>
class Scaling : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Scaling, Elements);

TYPED_TEST(Scaling, IsExactAndEvensOutRowsAndColumns) {
  using T = TypeParam;
  const support::Family family = {"uneven", 5, 6, 2, true, true, true, true, false, false, 0, 0};
  auto batch = support::random_batch<T>(family, 1, 71);
  const int n = family.n, m = family.m, p = family.p;
  std::mt19937 generator(3);
  std::uniform_int_distribution<int> exponent(-8, 8);
  std::vector<T> columns(n);
  for (T& by : columns) by = std::ldexp(T(1), exponent(generator));
  const auto stretch = [&](std::vector<T>& matrix, int rows) {
    for (int i = 0; i < rows; ++i) {
      const T row = std::ldexp(T(1), exponent(generator));
      for (int j = 0; j < n; ++j) matrix[i * n + j] *= row * columns[j];
    }
  };
  stretch(batch.G, m), stretch(batch.A, p);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) batch.Q[i * n + j] *= columns[i] * columns[j];

  Arena<T> counter;
  const Shape shape = Shape::of<SerialTeam, T>(batch.dims);
  const auto lay_out = [&](Arena<T>& arena) {
    Data<T> data(shape, arena);
    Scale<T> scale(shape, arena);
    T* work = arena.take(2 * (shape.np + shape.mp + shape.pp));
    return std::tuple(data, scale, work);
  };
  lay_out(counter);
  support::Scratch scratch;
  Arena<T> arena{scratch.get<T>(counter.used)}, copy_arena{scratch.get<T>(counter.used)};
  const auto [data, scale, work] = lay_out(arena);
  const auto [before, unused_scale, unused_work] = lay_out(copy_arena);
  fill_data(data, batch), fill_data(before, batch);
  scale.reset(SerialTeam{}, shape);
  equilibrate(SerialTeam{}, data, scale, T(0), work);
  EXPECT_TRUE(scratch.intact());

  const auto is_power_of_two = [](T x) {
    int unused;
    return std::frexp(x, &unused) == T(0.5);
  };
  const T cost = scale.cost[0];
  EXPECT_TRUE(is_power_of_two(cost));
  T largest = 0;
  for (int i = 0; i < n; ++i) {
    EXPECT_TRUE(is_power_of_two(scale.variable[i]));
    EXPECT_EQ(data.q[i], before.q[i] * (cost * scale.variable[i]));
    largest = std::max(largest, std::abs(data.q[i]));
    for (int j = 0; j < n; ++j) {
      const int at = i * shape.np + j;
      EXPECT_EQ(data.Q[at], before.Q[at] * (cost * scale.variable[i] * scale.variable[j]));
      largest = std::max(largest, std::abs(data.Q[at]));
    }
  }
  EXPECT_GE(largest, T(0.5));
  EXPECT_LE(largest, T(2));
  const T* variable = scale.variable;
  const auto check_rows = [&](const T* scaled, const T* original, const T* factor, int rows) {
    for (int i = 0; i < rows; ++i) {
      EXPECT_TRUE(is_power_of_two(factor[i]));
      T size = 0;
      for (int j = 0; j < n; ++j) {
        const int at = i * shape.np + j;
        EXPECT_EQ(scaled[at], original[at] * (factor[i] * variable[j]));
        size = std::max(size, std::abs(scaled[at]));
      }
      // One, but for what six passes leave and the rounding of two factors to powers of two.
      EXPECT_GE(size, T(0.4)) << "row " << i;
      EXPECT_LE(size, T(2.5)) << "row " << i;
    }
  };
  check_rows(data.G, before.G, scale.row, m);
  check_rows(data.A, before.A, scale.equality, p);
  for (int i = 0; i < p; ++i) EXPECT_EQ(data.b[i], before.b[i] * scale.equality[i]);
  for (int i = 0; i < m; ++i) {
    EXPECT_EQ(data.lower[i], before.lower[i] * scale.row[i]);
    EXPECT_EQ(data.upper[i], before.upper[i] * scale.row[i]);
  }
  for (int j = 0; j < n; ++j) {
    const int i = shape.mp + j;
    EXPECT_EQ(scale.row[i] * scale.variable[j], T(1));
    EXPECT_EQ(data.lower[i], before.lower[i] * scale.row[i]);
    EXPECT_EQ(data.upper[i], before.upper[i] * scale.row[i]);
  }
}

TYPED_TEST(Scaling, AGivenCostFactorIsTaken) {
  using T = TypeParam;
  const support::Family& family = support::families().at(3);
  const auto batch = support::random_batch<T>(family, 1, 72);
  Arena<T> counter;
  const Shape shape = Shape::of<SerialTeam, T>(batch.dims);
  Data<T>(shape, counter), Scale<T>(shape, counter);
  std::vector<T> memory(counter.used), work(2 * (shape.np + shape.mp + shape.pp));
  Arena<T> arena{memory.data()};
  Data<T> data(shape, arena);
  Scale<T> scale(shape, arena);
  fill_data(data, batch);
  scale.reset(SerialTeam{}, shape);
  equilibrate(SerialTeam{}, data, scale, T(0.125), work.data());
  EXPECT_EQ(scale.cost[0], T(0.125));
}

}  // namespace
}  // namespace torchqp::qp
