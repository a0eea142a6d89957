// One problem along rows: the bits of the tiles, for every size around the registers, the panels
// and their depth.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "linalg/routines.hpp"

namespace torchqp::linalg {
namespace {

template <class T>
class Rowwise : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Rowwise, Elements);

/// 1 to 40: every remainder of a register, of two, and of a group of rows. Then several panels, and
/// more columns than a panel is deep.
std::vector<int> sizes() {
  std::vector<int> result = {64, 100, 129, 200};
  for (int n = 1; n <= 40; ++n) result.push_back(n);
  return result;
}

/// The problems of a pack, which are computed in tiles.
constexpr int kProblems = 4;

/// compute<Scalar>(launch, data...) in a pack, and each problem alone: along rows where the level
/// has registers for it, and on a team of lanes.
template <class T, class Compute, class... Data>
void expect_bits_of_tiles(int n, const Compute& compute, const Problems<T>& first,
                          const Data&... rest) {
  const auto packed =
      compute.template operator()<Pack<T, kProblems>>(support::SerialLaunch{}, first, rest...);
  for (int w = 0; w < kProblems; ++w) {
    const auto alone = compute.template operator()<T>(
        support::SerialLaunch{}, Problems<T>{first[w]}, Problems<T>{rest[w]}...);
    ASSERT_TRUE(support::same_bits(alone[0], packed[w])) << "size " << n << ", problem " << w;
  }
  if (n > 40) return;  // emulated lanes are slow
  support::FiberGrid grid(3, support::LaneOrder::kShuffled, 1);
  auto team = compute.template operator()<T>(support::FiberLaunch{grid}, Problems<T>{first[0]},
                                             Problems<T>{rest[0]}...)[0];
  // Its tile is another, and so is the padding, whose zero products make a sum of -0 a sum of +0.
  auto expected = packed[0];
  for (auto* values : {&team, &expected})
    for (T& x : *values) x += T(0);
  ASSERT_TRUE(support::same_bits(team, expected)) << "size " << n << ", team";
}

/// Random numbers of which every third is a zero of either sign: a product that was not asked for
/// would change the sign of a sum that is zero.
template <class T>
Problems<T> random_entries(int length, unsigned seed) {
  Problems<T> result = support::random_problems<T>(kProblems, length, seed);
  for (int w = 0; w < kProblems; ++w)
    for (int e = 0; e < length; ++e)
      if ((e * 7 + w * 5 + static_cast<int>(seed)) % 3 == 0)
        result[w][e] = std::copysign(T(0), result[w][e]);
  return result;
}

/// Symmetric, and definite where asked: its random part has eigenvalues of about 1.7 sqrt(n).
template <class T>
Problems<T> random_symmetric(int n, unsigned seed, bool definite) {
  Problems<T> result = random_entries<T>(n * n, seed);
  for (std::vector<T>& H : result)
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < i; ++j) H[j * n + i] = H[i * n + j];
      if (definite) H[i * n + i] = T(1 + 2 * std::sqrt(n)) + std::abs(H[i * n + i]);
    }
  return result;
}

template <class T>
Factor<T> random_factor(int n, unsigned seed) {
  const support::SerialLaunch serial;
  const Problems<T> H = random_symmetric<T>(n, seed, true);
  Factor<T> result;
  for (int w = 0; w < kProblems; ++w) {
    const Factor<T> one = run_factor_cholesky<Pivot::kRequire, T>(serial, {H[w]}, n, 0.0);
    result.L.push_back(one.L[0]);
    result.inverse_diag.push_back(one.inverse_diag[0]);
  }
  return result;
}

template <class T, class Compute>
void for_each_size(Compute compute) {
  for (int n : sizes()) {
    compute(n);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

template <Pivot kPivot>
struct Factored {
  int n;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& H) const {
    auto factor = run_factor_cholesky<kPivot, Scalar>(launch, H, n, 1e-3);
    for (size_t w = 0; w < factor.L.size(); ++w)
      factor.L[w].insert(factor.L[w].end(), factor.inverse_diag[w].begin(),
                         factor.inverse_diag[w].end());
    return factor.L;
  }
};

TYPED_TEST(Rowwise, FactorCholesky) {
  for_each_size<TypeParam>([](int n) {
    expect_bits_of_tiles(n, Factored<Pivot::kRequire>{n},
                         random_symmetric<TypeParam>(n, 10 + n, true));
  });
}

TYPED_TEST(Rowwise, FactorCholeskyWithRejectedPivots) {
  for_each_size<TypeParam>([](int n) {
    Problems<TypeParam> H = random_symmetric<TypeParam>(n, 20 + n, true);
    for (int w = 0; w < kProblems; ++w) {
      const int i = (5 * w + n / 2) % n, above = i == 0 ? 0 : i - 1;
      if (w > 1) {
        H[w][i * n + i] = TypeParam(2 - w);  // 0 or -1
        continue;
      }
      // Row i is the row above again: its pivot is a rounding error of either sign.
      for (int k = 0; k < n; ++k) H[w][i * n + k] = H[w][k * n + i] = H[w][above * n + k];
      H[w][i * n + i] = H[w][i * n + above] = H[w][above * n + above];
    }
    expect_bits_of_tiles(n, Factored<Pivot::kDrop>{n}, H);
    expect_bits_of_tiles(n, Factored<Pivot::kRequire>{n}, H);
  });
}

TYPED_TEST(Rowwise, SolveLower) {
  for_each_size<TypeParam>([](int n) {
    const Factor<TypeParam> factor = random_factor<TypeParam>(n, 30 + n);
    for (Solve which : {Solve::kLower, Solve::kLowerTransposed})
      expect_bits_of_tiles(
          n,
          [&]<class Scalar>(const auto& launch, const auto& L, const auto& inverse, const auto& x) {
            return run_solve<Scalar>(launch, which, L, inverse, x, n);
          },
          factor.L, factor.inverse_diag, random_entries<TypeParam>(n, 40 + n));
  });
}

TYPED_TEST(Rowwise, SolveLowerRows) {
  for_each_size<TypeParam>([](int n) {
    const Factor<TypeParam> factor = random_factor<TypeParam>(n, 50 + n);
    for (int rows : {1, 9, 1 + 7 * n % 41})
      expect_bits_of_tiles(
          n,
          [&]<class Scalar>(const auto& launch, const auto& L, const auto& inverse, const auto& X) {
            return run_solve_lower_rows<Scalar>(launch, L, inverse, X, rows, n);
          },
          factor.L, factor.inverse_diag, random_entries<TypeParam>(rows * n, 60 + n));
  });
}

template <class T, Into kInto>
void check_multiply(int rows, int cols) {
  for (bool transposed : {false, true})
    expect_bits_of_tiles(
        rows,
        [&]<class Scalar>(const auto& launch, const auto& A, const auto& x, const auto& y) {
          return run_multiply<kInto, Scalar>(launch, transposed, A, x, y, rows, cols);
        },
        random_entries<T>(rows * cols, 70), random_entries<T>(transposed ? rows : cols, 71),
        random_entries<T>(transposed ? cols : rows, 72));
}

TYPED_TEST(Rowwise, Multiply) {
  for_each_size<TypeParam>([](int n) {
    for (int other : {n, 3, 1 + 7 * n % 41}) {
      check_multiply<TypeParam, Into::kReplace>(n, other);
      check_multiply<TypeParam, Into::kAdd>(other, n);
    }
  });
}

TYPED_TEST(Rowwise, MultiplyBoth) {
  for_each_size<TypeParam>([](int n) {
    for (int other : {n, 3, 1 + 7 * n % 41})
      expect_bits_of_tiles(
          n,
          [&]<class Scalar>(const auto& launch, const auto& A, const auto& x, const auto& u) {
            return run_multiply_both<Scalar>(launch, A, x, u, n, other);
          },
          random_entries<TypeParam>(n * other, 73), random_entries<TypeParam>(other, 74),
          random_entries<TypeParam>(n, 75));
  });
}

TYPED_TEST(Rowwise, MultiplySymmetricByHalves) {
  // What multiply_symmetric does with matrices larger than a cache.
  if constexpr (!rowwise_v<SerialTeam, TypeParam>) {
    GTEST_SKIP() << "this level computes in tiles";
  } else {
    for_each_size<TypeParam>([](int n) {
      Problems<TypeParam> A = random_symmetric<TypeParam>(n, 80 + n, false);
      const Problems<TypeParam> x = random_entries<TypeParam>(n, 81);
      const Problems<TypeParam> expected = run_multiply<Into::kReplace, TypeParam>(
          support::SerialLaunch{}, false, A, x, Problems<TypeParam>(), n, n);
      const int stride = n + kGap;
      Scratch scratch;
      TypeParam* block = support::pack_matrix<TypeParam>(scratch, A, n, n, n, n, stride, 0.0);
      poison_above_diagonal(block, n, stride);
      TypeParam* out = scratch.get<TypeParam>(n);
      strip::multiply_symmetric(block, stride, n, scratch.copy(x[0]), out);
      EXPECT_TRUE(scratch.intact());
      ASSERT_TRUE(support::same_bits(std::vector<TypeParam>(out, out + n), expected[0])) << n;
    });
  }
}

TYPED_TEST(Rowwise, MultiplySymmetricOfMoreThanACacheIsMultiply) {
  const int n = 1030;  // singles fill four MiB, whose half is read, doubles twice as much
  const Problems<TypeParam> A = {random_symmetric<TypeParam>(n, 83, false)[0]};
  const Problems<TypeParam> x = {random_entries<TypeParam>(n, 84)[0]};
  const support::SerialLaunch serial;
  const auto symmetric = run_multiply_symmetric<TypeParam>(serial, A, x, n);
  const auto expected = run_multiply<Into::kReplace, TypeParam>(serial, false, A, x, {}, n, n);
  EXPECT_TRUE(support::same_bits(symmetric[0], expected[0]));
}

TYPED_TEST(Rowwise, ProductsWithAMatrixWithoutRowsAreZero) {
  const support::SerialLaunch serial;
  for (int cols : {1, 4, 13, 40}) {
    const Problems<TypeParam> none(1), x = {random_entries<TypeParam>(cols, 85)[0]};
    const std::vector<TypeParam> zeros(cols, TypeParam(0)), &added = x[0];
    EXPECT_TRUE(support::same_bits(
        run_multiply<Into::kReplace, TypeParam>(serial, true, none, none, {}, 0, cols)[0], zeros))
        << cols;
    EXPECT_TRUE(support::same_bits(
        run_multiply<Into::kAdd, TypeParam>(serial, true, none, none, x, 0, cols)[0], added))
        << cols;
    EXPECT_TRUE(
        support::same_bits(run_multiply_both<TypeParam>(serial, none, x, none, 0, cols)[0], zeros))
        << cols;
  }
}

template <class T, Into kInto>
void check_multiply_rows(int rows, int cols, int depth, bool lower_only) {
  const Problems<T> X = random_entries<T>(rows * depth, 90);
  expect_bits_of_tiles(
      rows,
      [&]<class Scalar>(const auto& launch, const auto& X, const auto& Y, const auto& P) {
        return run_multiply_rows<kInto, Scalar>(launch, X, Y, P, rows, cols, depth, lower_only);
      },
      X, lower_only ? X : random_entries<T>(cols * depth, 91),
      lower_only ? random_symmetric<T>(rows, 92, false) : random_entries<T>(rows * cols, 92));
}

TYPED_TEST(Rowwise, MultiplyRows) {
  for_each_size<TypeParam>([](int n) {
    const int other = 1 + 7 * n % 41;
    check_multiply_rows<TypeParam, Into::kReplace>(n, other, 5, false);
    check_multiply_rows<TypeParam, Into::kAdd>(other, n, 1, false);
    check_multiply_rows<TypeParam, Into::kReplace>(other, 14, n, false);
    check_multiply_rows<TypeParam, Into::kAdd>(17, other, n, false);
    check_multiply_rows<TypeParam, Into::kReplace>(n, n, other, true);
    check_multiply_rows<TypeParam, Into::kAdd>(n, n, other, true);
  });
}

TYPED_TEST(Rowwise, SubtractGram) {
  for_each_size<TypeParam>([](int n) {
    for (int depth : {1, 130, 1 + 7 * n % 41})
      expect_bits_of_tiles(
          n,
          [&]<class Scalar>(const auto& launch, const auto& X, const auto& P) {
            return run_subtract_gram<Scalar>(launch, X, P, n, depth);
          },
          random_entries<TypeParam>(n * depth, 95), random_symmetric<TypeParam>(n, 96, false));
  });
}

TYPED_TEST(Rowwise, AddWeightedGram) {
  for_each_size<TypeParam>([](int n) {
    for (int rows : {1, 130, 1 + 7 * n % 41})
      expect_bits_of_tiles(
          n,
          [&]<class Scalar>(const auto& launch, const auto& Q, const auto& G, const auto& weight) {
            return run_add_weighted_gram<Scalar>(launch, Q, G, weight, n, rows);
          },
          random_symmetric<TypeParam>(n, 97, false), random_entries<TypeParam>(rows * n, 98),
          random_entries<TypeParam>(rows, 99));
  });
}

}  // namespace
}  // namespace torchqp::linalg
