// Solves with a triangular factor: residuals against long double arithmetic, one answer on all
// teams.
#include <gtest/gtest.h>

#include <cmath>

#include "linalg/expect.hpp"
#include "linalg/routines.hpp"

namespace torchqp::linalg {
namespace {

template <class Scalar>
class Triangular : public ::testing::Test {};
TYPED_TEST_SUITE(Triangular, Scalars);

/// Random lower triangular factors with a dominant diagonal, and their inverse diagonals.
template <class T>
struct Factors {
  Problems<T> L, inverse_diag;

  Factors(int count, int n, unsigned seed) : L(support::random_problems<T>(count, n * n, seed)) {
    for (std::vector<T>& factor : L) {
      std::vector<T> inverse(n);
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < i; ++j) factor[i * n + j] /= static_cast<T>(std::sqrt(n));
        // What lies above the diagonal is not read.
        for (int j = i + 1; j < n; ++j) factor[i * n + j] = std::numeric_limits<T>::quiet_NaN();
        factor[i * n + i] = 1 + std::abs(factor[i * n + i]);
        inverse[i] = 1 / factor[i * n + i];
      }
      inverse_diag.push_back(inverse);
    }
  }
};

template <Solve kWhich>
struct SolveOne {
  int n;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& L,
                         const Problems<T>& inverse_diag, const Problems<T>& x) const {
    return run_solve<Scalar>(launch, kWhich, L, inverse_diag, x, n);
  }
};

struct SolveRows {
  int rows, n;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& L,
                         const Problems<T>& inverse_diag, const Problems<T>& X) const {
    return run_solve_lower_rows<Scalar>(launch, L, inverse_diag, X, rows, n);
  }
};

/// Entry (i, j) of the lower triangle, zero above.
template <class T>
long double lower(const std::vector<T>& L, int n, int i, int j) {
  return j <= i ? static_cast<long double>(L[i * n + j]) : 0;
}

/// |L x - b| <= gamma |L| |x| in every entry (Higham, theorem 8.5), or with L' where transposed.
template <class T>
void expect_solves(const std::vector<T>& L, const T* x, const T* b, int n, bool transposed) {
  const long double gamma = support::gamma_bound<T>(n + 2);  // a pivot is applied as its inverse
  for (int i = 0; i < n; ++i) {
    long double sum = 0, size = 0;
    for (int j = 0; j < n; ++j) {
      const long double term = (transposed ? lower(L, n, j, i) : lower(L, n, i, j)) * x[j];
      sum += term;
      size += std::abs(term);
    }
    ASSERT_LE(std::abs(sum - b[i]), gamma * size) << "row " << i << " of " << n;
  }
}

TYPED_TEST(Triangular, SolvesLowerOnEveryTeam) {
  using T = Element<TypeParam>;
  for (int n : kSizes) {
    const Factors<T> factors(width_v<TypeParam>, n, 20 + n);
    const Problems<T> b = support::random_problems<T>(width_v<TypeParam>, n, 500 + n);
    const Problems<T> x = expect_one_answer<TypeParam>(SolveOne<Solve::kLower>{n}, factors.L,
                                                       factors.inverse_diag, b);
    for (int w = 0; w < width_v<TypeParam>; ++w)
      expect_solves(factors.L[w], x[w].data(), b[w].data(), n, false);
  }
}

TYPED_TEST(Triangular, SolvesTransposedOnEveryTeam) {
  using T = Element<TypeParam>;
  for (int n : kSizes) {
    const Factors<T> factors(width_v<TypeParam>, n, 40 + n);
    const Problems<T> b = support::random_problems<T>(width_v<TypeParam>, n, 600 + n);
    const Problems<T> x = expect_one_answer<TypeParam>(SolveOne<Solve::kLowerTransposed>{n},
                                                       factors.L, factors.inverse_diag, b);
    for (int w = 0; w < width_v<TypeParam>; ++w)
      expect_solves(factors.L[w], x[w].data(), b[w].data(), n, true);
  }
}

TYPED_TEST(Triangular, SolvesCholeskyOnEveryTeam) {
  using T = Element<TypeParam>;
  for (int n : kSizes) {
    const Factors<T> factors(width_v<TypeParam>, n, 60 + n);
    const Problems<T> b = support::random_problems<T>(width_v<TypeParam>, n, 700 + n);
    const Problems<T> x = expect_one_answer<TypeParam>(SolveOne<Solve::kCholesky>{n}, factors.L,
                                                       factors.inverse_diag, b);
    // |L L' x - b| <= (2 gamma + gamma^2) |L| |L'| |x|.
    const long double gamma = support::gamma_bound<T>(n + 2);
    for (int w = 0; w < width_v<TypeParam>; ++w) {
      std::vector<long double> y(n), y_size(n);
      for (int i = 0; i < n; ++i)
        for (int j = i; j < n; ++j) {
          const long double term = lower(factors.L[w], n, j, i) * x[w][j];
          y[i] += term;
          y_size[i] += std::abs(term);
        }
      for (int i = 0; i < n; ++i) {
        long double sum = 0, size = 0;
        for (int j = 0; j <= i; ++j) {
          sum += lower(factors.L[w], n, i, j) * y[j];
          size += std::abs(lower(factors.L[w], n, i, j)) * y_size[j];
        }
        ASSERT_LE(std::abs(sum - b[w][i]), gamma * (2 + gamma) * size) << i << " of " << n;
      }
    }
  }
}

TYPED_TEST(Triangular, SolvesEveryRowOfAMatrix) {
  using T = Element<TypeParam>;
  for (int n : kSizes)
    for (int rows : {1, 4, 33}) {
      const Factors<T> factors(width_v<TypeParam>, n, 80 + n);
      const Problems<T> B = support::random_problems<T>(width_v<TypeParam>, rows * n, 800 + n);
      const Problems<T> X =
          expect_one_answer<TypeParam>(SolveRows{rows, n}, factors.L, factors.inverse_diag, B);
      for (int w = 0; w < width_v<TypeParam>; ++w)
        for (int i = 0; i < rows; ++i)
          expect_solves(factors.L[w], X[w].data() + i * n, B[w].data() + i * n, n, false);
    }
}

TYPED_TEST(Triangular, RowsHaveTheSerialBitsWithEveryBlock) {
  using T = Element<TypeParam>;
  for (int n : {5, 16, 33}) {
    const Factors<T> factors(width_v<TypeParam>, n, 85 + n);
    const Problems<T> B = support::random_problems<T>(width_v<TypeParam>, 9 * n, 850 + n);
    const auto solve = [&](const auto& launch) {
      return run_solve_lower_rows<TypeParam>(launch, factors.L, factors.inverse_diag, B, 9, n);
    };
    const Problems<T> serial = solve(support::SerialLaunch{});
    for_each_block([&](const auto& launch, const std::string& description) {
      const Problems<T> blocked = solve(launch);
      for (int w = 0; w < width_v<TypeParam>; ++w)
        EXPECT_TRUE(support::same_bits(blocked[w], serial[w])) << n << ", " << description;
    });
  }
}

TYPED_TEST(Triangular, ARowOfAMatrixHasTheBitsOfTheSolveOfOneVector) {
  using T = Element<TypeParam>;
  const int n = 33;
  const Factors<T> factors(width_v<TypeParam>, n, 99);
  const Problems<T> b = support::random_problems<T>(width_v<TypeParam>, n, 900);
  const support::SerialLaunch serial;
  const Problems<T> one =
      run_solve<TypeParam>(serial, Solve::kLower, factors.L, factors.inverse_diag, b, n);
  const Problems<T> row =
      run_solve_lower_rows<TypeParam>(serial, factors.L, factors.inverse_diag, b, 1, n);
  for (int w = 0; w < width_v<TypeParam>; ++w) EXPECT_TRUE(support::same_bits(one[w], row[w]));
}

TYPED_TEST(Triangular, HandValues) {
  using T = Element<TypeParam>;
  auto all = [](std::vector<T> values) { return Problems<T>(width_v<TypeParam>, values); };
  const support::SerialLaunch serial;
  const auto L = all({2, 0, 0, 1, 4, 0, 4, 2, 2}), inverse = all({0.5, 0.25, 0.5});
  auto solve = [&](Solve which, std::vector<T> b) {
    return run_solve<TypeParam>(serial, which, L, inverse, all(b), 3)[0];
  };
  EXPECT_EQ(solve(Solve::kLower, {2, 9, 14}), (std::vector<T>{1, 2, 3}));
  EXPECT_EQ(solve(Solve::kLowerTransposed, {16, 14, 6}), (std::vector<T>{1, 2, 3}));
  EXPECT_EQ(solve(Solve::kCholesky, {32, 72, 104}), (std::vector<T>{1, 2, 3}));
  EXPECT_EQ(run_solve<TypeParam>(serial, Solve::kCholesky, all({}), all({}), all({}), 0)[0].size(),
            0u);
  EXPECT_EQ(run_solve_lower_rows<TypeParam>(serial, L, inverse, all({2, 9, 14, 0, 4, 4}), 2, 3)[0],
            (std::vector<T>{1, 2, 3, 0, 1, 1}));
}

}  // namespace
}  // namespace torchqp::linalg
