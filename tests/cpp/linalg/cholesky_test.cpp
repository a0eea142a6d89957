// Cholesky: what the header promises, for every scalar and every team.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "linalg/expect.hpp"
#include "linalg/routines.hpp"

namespace torchqp::linalg {
namespace {

template <class Scalar>
class Cholesky : public ::testing::Test {};
TYPED_TEST_SUITE(Cholesky, Scalars);

/// H = X X' + shift I per problem, X random [n, n].
template <class T>
Problems<T> random_spd(int count, int n, unsigned seed, double shift = 0.1) {
  const Problems<T> X = support::random_problems<T>(count, n * n, seed);
  Problems<T> H(count, std::vector<T>(n * n));
  for (int w = 0; w < count; ++w)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        long double sum = i == j ? shift : 0;
        for (int k = 0; k < n; ++k) sum += (long double)X[w][i * n + k] * X[w][j * n + k];
        H[w][i * n + j] = static_cast<T>(sum);
      }
  return H;
}

/// L, then inverse_diag, per problem: all that is compared.
template <Pivot kPivot>
struct FactorAll {
  int n;
  double tolerance = 0;
  template <class Scalar, class Launch>
  Problems<Element<Scalar>> operator()(const Launch& launch,
                                       const Problems<Element<Scalar>>& H) const {
    auto factor = run_factor_cholesky<kPivot, Scalar>(launch, H, n, tolerance);
    for (size_t w = 0; w < factor.L.size(); ++w)
      factor.L[w].insert(factor.L[w].end(), factor.inverse_diag[w].begin(),
                         factor.inverse_diag[w].end());
    return factor.L;
  }
};

TYPED_TEST(Cholesky, FactorReproducesTheMatrixOnEveryTeam) {
  using T = Element<TypeParam>;
  for (int n : kSizes) {
    const Problems<T> H = random_spd<T>(width_v<TypeParam>, n, 100 + n);
    const Problems<T> result = expect_one_answer<TypeParam>(FactorAll<Pivot::kRequire>{n}, H);
    // Componentwise backward error (Higham, Accuracy and Stability, theorem 10.3): n + 1 roundings,
    // and three more because a pivot is applied as 1 / sqrt.
    const long double gamma = support::gamma_bound<T>(n + 4);
    for (int w = 0; w < width_v<TypeParam>; ++w) {
      const std::vector<T>& L = result[w];
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j <= i; ++j) {
          long double sum = 0, size = 0;
          for (int k = 0; k <= j; ++k) {
            sum += (long double)L[i * n + k] * L[j * n + k];
            size += std::abs((long double)L[i * n + k] * L[j * n + k]);
          }
          ASSERT_LE(std::abs(sum - H[w][i * n + j]), gamma * size) << n << ": " << i << "," << j;
        }
        const T inverse = L[n * n + i];
        ASSERT_NEAR(inverse * (long double)L[i * n + i], 1.0,
                    3 * std::numeric_limits<T>::epsilon());
      }
    }
  }
}

TYPED_TEST(Cholesky, EveryBlockHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (int n : {5, 16, 33}) {
    Problems<T> H = random_spd<T>(width_v<TypeParam>, n, 200 + n);
    for (int k = 0; k < n; ++k) {  // the second block has a row that depends on those above it
      H[0][10 % n * n + k] = H[0][k];
      H[0][k * n + 10 % n] = H[0][k * n];
    }
    H[0][10 % n * (n + 1)] = H[0][0];
    const FactorAll<Pivot::kDrop> factor{n, 1e-3};
    const auto serial = factor.template operator()<TypeParam>(support::SerialLaunch{}, H);
    for_each_block([&](const auto& launch, const std::string& description) {
      const auto blocked = factor.template operator()<TypeParam>(launch, H);
      for (int w = 0; w < width_v<TypeParam>; ++w)
        EXPECT_TRUE(support::same_bits(blocked[w], serial[w])) << n << ", " << description;
    });
  }
}

TYPED_TEST(Cholesky, HandValues) {
  using T = Element<TypeParam>;
  auto factor = [](std::vector<T> H, int n) {
    return run_factor_cholesky<Pivot::kRequire, TypeParam>(
        support::SerialLaunch{}, Problems<T>(width_v<TypeParam>, H), n, 0.0);
  };
  const auto one = factor({4}, 1);
  EXPECT_EQ(one.L[0], (std::vector<T>{2}));
  EXPECT_EQ(one.inverse_diag[0], (std::vector<T>{0.5}));
  const auto three = factor({4, -1, -1, 2, 17, -1, 8, 12, 24}, 3);  // what lies above is not read
  EXPECT_EQ(three.L[0], (std::vector<T>{2, 0, 0, 1, 4, 0, 4, 2, 2}));
  EXPECT_EQ(three.inverse_diag[0], (std::vector<T>{0.5, 0.25, 0.5}));
  EXPECT_EQ(factor({}, 0).L[0].size(), 0u);
}

TYPED_TEST(Cholesky, DropsARowThatDependsOnThoseAboveIt) {
  using T = Element<TypeParam>;
  // Rows 1 and 3 are rows 0 and 2 again: their pivots are exactly zero.
  const std::vector<T> H = {4, 4, 2, 2, 4, 4, 2, 2, 2, 2, 5, 5, 2, 2, 5, 5};
  const Problems<T> result = expect_one_answer<TypeParam>(FactorAll<Pivot::kDrop>{4, 1e-3},
                                                          Problems<T>(width_v<TypeParam>, H));
  EXPECT_EQ(result[0], (std::vector<T>{2,   0, 0,   0, 2, 0, 0, 0, 1, 0, 2, 0, 1, 0, 2, 0,  //
                                       0.5, 0, 0.5, 0}));
}

TYPED_TEST(Cholesky, ToleranceIsRelativeToTheDiagonalEntry) {
  using T = Element<TypeParam>;
  for (double scale : {1.0, 1024.0, 1.0 / 1024}) {
    // The second pivot is 1/16 of the diagonal entry it started from.
    std::vector<T> H = {15, 0, 15, 16};
    for (T& x : H) x = static_cast<T>(x * scale);
    const Problems<T> all(width_v<TypeParam>, H);
    const support::SerialLaunch serial;
    const auto kept = run_factor_cholesky<Pivot::kDrop, TypeParam>(serial, all, 2, 0.05);
    const auto dropped = run_factor_cholesky<Pivot::kDrop, TypeParam>(serial, all, 2, 0.07);
    const auto refused = run_factor_cholesky<Pivot::kRequire, TypeParam>(serial, all, 2, 0.07);
    EXPECT_NEAR(kept.inverse_diag[0][1] * std::sqrt(scale), 1.0, 1e-5);
    EXPECT_EQ(dropped.inverse_diag[0][1], 0);
    EXPECT_TRUE(std::isnan(refused.inverse_diag[0][1]));
    EXPECT_EQ(kept.inverse_diag[0][0], dropped.inverse_diag[0][0]);
  }
}

TYPED_TEST(Cholesky, DroppedRowsLeaveAConsistentSystemSolved) {
  using T = Element<TypeParam>;
  for (int n : {4, 9, 33}) {
    const int rank = (n + 1) / 2, count = width_v<TypeParam>;
    Problems<T> H(count, std::vector<T>(n * n)), b(count, std::vector<T>(n));
    std::mt19937 generator(n);
    std::uniform_int_distribution<int> small(-2, 2);
    for (int w = 0; w < count; ++w) {
      // H = X X' with small integers: exact in either precision, of rank `rank`. b = H y.
      std::vector<int> X(n * rank), y(n);
      for (int i = 0; i < n; ++i)
        for (int k = 0; k < rank; ++k) X[i * rank + k] = i < rank ? (i == k) : small(generator);
      for (int& entry : y) entry = small(generator);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) {
          int sum = 0;
          for (int k = 0; k < rank; ++k) sum += X[i * rank + k] * X[j * rank + k];
          H[w][i * n + j] = sum;
          b[w][i] += sum * y[j];
        }
    }
    const support::SerialLaunch serial;
    const auto factor = run_factor_cholesky<Pivot::kDrop, TypeParam>(serial, H, n, 1e-4);
    const Problems<T> x =
        run_solve<TypeParam>(serial, Solve::kCholesky, factor.L, factor.inverse_diag, b, n);
    for (int w = 0; w < count; ++w)
      for (int i = 0; i < n; ++i) {
        long double sum = -(long double)b[w][i];
        for (int j = 0; j < n; ++j) sum += (long double)H[w][i * n + j] * x[w][j];
        EXPECT_EQ(sum, 0) << "every intermediate is a small integer";
        EXPECT_EQ(factor.inverse_diag[w][i], i < rank ? 1 : 0);
      }
  }
}

TYPED_TEST(Cholesky, AnIndefiniteProblemSpoilsOnlyItsOwnLane) {
  using T = Element<TypeParam>;
  for (int n : {5, 33})
    for (int pivot : {0, 2, n - 1})
      for (double value : {-1.0, 0.0}) {
        Problems<T> H = random_spd<T>(width_v<TypeParam>, n, 7);
        const int bad = width_v<TypeParam> - 1;
        for (int k = 0; k < n; ++k) H[bad][pivot * n + k] = H[bad][k * n + pivot] = 0;
        H[bad][pivot * n + pivot] = static_cast<T>(value);
        // expect_one_answer compares each of the others with its run alone.
        const Problems<T> result = expect_one_answer<TypeParam>(FactorAll<Pivot::kRequire>{n}, H);
        for (int w = 0; w < bad; ++w)
          for (T x : result[w]) ASSERT_TRUE(std::isfinite(x));
        const T* inverse = result[bad].data() + n * n;
        for (int i = 0; i <= pivot; ++i)
          EXPECT_EQ(std::isnan(inverse[i]), i == pivot) << "pivot " << pivot << " of " << n;
      }
}

TYPED_TEST(Cholesky, NaNInOneProblemStaysThere) {
  using T = Element<TypeParam>;
  const int n = 6, bad = width_v<TypeParam> - 1;
  Problems<T> H = random_spd<T>(width_v<TypeParam>, n, 9);
  H[bad][4 * n + 1] = std::numeric_limits<T>::quiet_NaN();
  const Problems<T> result = expect_one_answer<TypeParam>(FactorAll<Pivot::kRequire>{n}, H);
  EXPECT_TRUE(std::isnan(result[bad][n * n + 4]));
  for (int w = 0; w < bad; ++w)
    for (T x : result[w]) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace torchqp::linalg
