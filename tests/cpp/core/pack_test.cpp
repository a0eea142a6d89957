// One lane of a Pack has the bits of the scalar run, for every operation and every special value.
#include "core/pack.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/packed.hpp"

namespace torchqp {
namespace {

using support::same_bits;

template <class P>
class PackOperations : public ::testing::Test {};
// Registers of the machine (32 bytes), half of one, and twice one.
using Packs = ::testing::Types<Pack<double, 4>, Pack<float, 8>, Pack<double, 2>, Pack<float, 16>>;
TYPED_TEST_SUITE(PackOperations, Packs);

template <class T>
std::vector<T> special_values() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> values = {0,
                           1,
                           3,
                           T(0.1),
                           Limits::min(),
                           Limits::denorm_min(),
                           Limits::max(),
                           Limits::infinity(),
                           T(1e20),
                           1 + Limits::epsilon(),
                           T(1.4142135623730951)};
  for (size_t i = values.size(); i > 0; --i) values.push_back(-values[i - 1]);
  values.push_back(Limits::quiet_NaN());
  return values;
}

/// A pack with x in lane `lane` and other numbers elsewhere.
template <class P>
P beside(Element<P> x, int lane) {
  P pack = broadcast<P>(7.25);
  set(pack, lane, x);
  return pack;
}

#define EXPECT_SAME(expression)                                                                    \
  {                                                                                                \
    auto f = [](auto a, auto b, auto c) {                                                          \
      (void)b, (void)c;                                                                            \
      return expression;                                                                           \
    };                                                                                             \
    const T lane_value = get(f(beside<P>(x, lane), beside<P>(y, lane), beside<P>(z, lane)), lane); \
    EXPECT_TRUE(same_bits(lane_value, f(x, y, z)))                                                 \
        << #expression << " for " << x << ", " << y << ", " << z << ": " << lane_value;            \
  }
#define EXPECT_SAME_MASK(expression)                                              \
  {                                                                               \
    auto f = [](auto a, auto b) {                                                 \
      (void)b;                                                                    \
      return expression;                                                          \
    };                                                                            \
    EXPECT_EQ(get_mask(f(beside<P>(x, lane), beside<P>(y, lane)), lane), f(x, y)) \
        << #expression << " for " << x << ", " << y;                              \
  }

TYPED_TEST(PackOperations, ALaneHasTheBitsOfTheScalar) {
  using P = TypeParam;
  using T = Element<P>;
  const std::vector<T> values = special_values<T>();
  int turn = 0;
  for (T x : values)
    for (T y : values) {
      const T z = values[++turn % values.size()];
      const int lane = turn % width_v<P>;
      EXPECT_SAME(a + b);
      EXPECT_SAME(a - b);
      EXPECT_SAME(a * b);
      EXPECT_SAME(a / b);
      EXPECT_SAME(-a);
      EXPECT_SAME(fused(a, b, c));
      EXPECT_SAME(fnma(a, b, c));
      EXPECT_SAME(square_root(a));
      EXPECT_SAME(reciprocal(a));
      EXPECT_SAME(reciprocal_sqrt(a));
      EXPECT_SAME(minimum(a, b));
      EXPECT_SAME(maximum(a, b));
      EXPECT_SAME(absolute(a));
      EXPECT_SAME(max_norm(a, b));
      EXPECT_SAME(power_of_two(a));
      EXPECT_SAME(select(a < b, a, c));
      EXPECT_SAME_MASK(a < b);
      EXPECT_SAME_MASK(a <= b);
      EXPECT_SAME_MASK(a > b);
      EXPECT_SAME_MASK(a >= b);
      EXPECT_SAME_MASK(a == b);
      EXPECT_SAME_MASK(a != b);
      EXPECT_SAME_MASK(both(a<b, a> - b));
      EXPECT_SAME_MASK(either(a<b, a> - b));
      EXPECT_SAME_MASK(negate(a < b));
      EXPECT_SAME_MASK(is_finite(a));
      EXPECT_TRUE(same_bits(get(broadcast<P>(x), lane), broadcast<T>(x))) << x;
    }
}

TYPED_TEST(PackOperations, MasksReduceOverAllLanes) {
  using P = TypeParam;
  const P zero = broadcast<P>(0);
  for (int lane = 0; lane < width_v<P>; ++lane) {
    P one = zero;
    set(one, lane, 1);
    EXPECT_TRUE(any(one > zero));
    EXPECT_EQ(all(one > zero), width_v<P> == 1);
    EXPECT_FALSE(all(one <= zero));
    EXPECT_TRUE(get_mask(one > zero, lane));
  }
  EXPECT_FALSE(any(zero > zero));
  EXPECT_TRUE(all(zero >= zero));
  EXPECT_TRUE(all(broadcast_mask<P>(true)));
  EXPECT_FALSE(any(broadcast_mask<P>(false)));
}

TYPED_TEST(PackOperations, GatherReadsItsOwnLaneAtItsOwnPlace) {
  using P = TypeParam;
  constexpr int kRows = 5, kStride = 7;
  std::vector<P> matrix(kRows * kStride);
  for (int i = 0; i < kRows * kStride; ++i)
    for (int w = 0; w < width_v<P>; ++w) set(matrix[i], w, Element<P>(100 * w + i));
  P row = broadcast<P>(0), col = row;
  for (int w = 0; w < width_v<P>; ++w) {
    set(row, w, Element<P>(w % kRows));
    set(col, w, Element<P>((3 * w + 1) % kStride));
  }
  const P entry = gather(matrix.data(), row, kStride, col), alone = gather(matrix.data(), col);
  for (int w = 0; w < width_v<P>; ++w) {
    EXPECT_EQ(get(entry, w), 100 * w + w % kRows * kStride + (3 * w + 1) % kStride);
    EXPECT_EQ(get(alone, w), 100 * w + (3 * w + 1) % kStride);
  }
}

TYPED_TEST(PackOperations, EveryLaneOfAMaskIsVisitedOnce) {
  using P = TypeParam;
  P value = broadcast<P>(0);
  for (int w = 0; w < width_v<P>; w += 3) set(value, w, 1);
  std::vector<int> visited;
  for_each_lane(value > broadcast<P>(0), [&](int w) { visited.push_back(w); });
  std::vector<int> expected;
  for (int w = 0; w < width_v<P>; w += 3) expected.push_back(w);
  EXPECT_EQ(visited, expected);
}

template <class T>
class ScalarFunctions : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ScalarFunctions, Elements);

TYPED_TEST(ScalarFunctions, FusedRoundsOnce) {
  using T = TypeParam;
  const T e = std::numeric_limits<T>::epsilon();
  EXPECT_EQ(fused(1 + e, 1 - e, T(-1)), -e * e);  // two roundings give 0
  EXPECT_EQ(fnma(1 + e, 1 - e, T(1)), e * e);
}

TYPED_TEST(ScalarFunctions, AFailedPivotIsNaN) {
  using T = TypeParam;
  EXPECT_EQ(reciprocal_sqrt(T(0.25)), T(2));
  for (T bad : {T(0), T(-1), -std::numeric_limits<T>::min()})
    EXPECT_TRUE(std::isnan(reciprocal_sqrt(bad))) << bad;
}

TYPED_TEST(ScalarFunctions, ANormKeepsANaN) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  EXPECT_TRUE(std::isnan(max_norm(max_norm(T(1), nan), T(2))));
  EXPECT_TRUE(std::isnan(max_norm(nan, T(2))));
  EXPECT_EQ(max_norm(T(1), T(-2)), T(2));
  EXPECT_EQ(max_norm(T(3), T(-2)), T(3));
}

TYPED_TEST(ScalarFunctions, PowersOfTwoAreExactAndNear) {
  using T = TypeParam;
  for (T x : {T(1e-30), T(0.6), T(1), T(1.4), T(1.5), T(3), T(1e30)}) {
    const T power = power_of_two(x);
    int exponent;
    EXPECT_EQ(std::frexp(power, &exponent), T(0.5)) << "a power of two";
    EXPECT_LE(power, x * T(1.4142136));
    EXPECT_GT(power * T(1.4142136), x);
  }
  EXPECT_EQ(power_of_two(T(0)), T(1));
  EXPECT_EQ(power_of_two(std::numeric_limits<T>::infinity()), T(1));
  EXPECT_EQ(power_of_two(std::numeric_limits<T>::quiet_NaN()), T(1));
}

}  // namespace
}  // namespace torchqp
