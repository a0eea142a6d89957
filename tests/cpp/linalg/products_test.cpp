// Products: entries against long double sums, one answer on all teams.
#include <gtest/gtest.h>

#include <cmath>

#include "linalg/expect.hpp"
#include "linalg/routines.hpp"

namespace torchqp::linalg {
namespace {

template <class Scalar>
class Products : public ::testing::Test {};
TYPED_TEST_SUITE(Products, Scalars);

struct Shape {
  int rows, cols, depth;
};
constexpr Shape kShapes[] = {{1, 1, 1},   {2, 4, 3},    {4, 2, 5},   {31, 33, 2},
                             {33, 31, 7}, {32, 32, 32}, {5, 33, 31}, {7, 1, 33}};

template <Into kInto, bool kTransposed>
struct Multiply {
  int rows, cols;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& A, const Problems<T>& x,
                         const Problems<T>& y) const {
    return run_multiply<kInto, Scalar>(launch, kTransposed, A, x, y, rows, cols);
  }
};

template <Into kInto>
struct MultiplyRows {
  Shape shape;
  bool lower_only;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& X, const Problems<T>& Y,
                         const Problems<T>& P) const {
    return run_multiply_rows<kInto, Scalar>(launch, X, Y, P, shape.rows, shape.cols, shape.depth,
                                            lower_only);
  }
};

struct MultiplySymmetric {
  int n;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& A, const Problems<T>& x) const {
    return run_multiply_symmetric<Scalar>(launch, A, x, n);
  }
};

struct MultiplyBoth {
  int rows, cols;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& A, const Problems<T>& x,
                         const Problems<T>& u) const {
    return run_multiply_both<Scalar>(launch, A, x, u, rows, cols);
  }
};

struct SubtractGram {
  int rows, depth;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& X, const Problems<T>& P) const {
    return run_subtract_gram<Scalar>(launch, X, P, rows, depth);
  }
};

struct AddWeightedGram {
  int n, rows;
  template <class Scalar, class Launch, class T>
  Problems<T> operator()(const Launch& launch, const Problems<T>& Q, const Problems<T>& G,
                         const Problems<T>& weight) const {
    return run_add_weighted_gram<Scalar>(launch, Q, G, weight, n, rows);
  }
};

/// An exact sum and the sum of the sizes of its terms, by which its rounding error is measured.
struct Sum {
  long double value = 0, size = 0;
  void add(long double term) {
    value += term;
    size += std::abs(term);
  }
};

/// |actual - sum| <= gamma_k size: the error of a sum of products with `roundings` roundings a
/// term.
template <class T>
void expect_sum(T actual, const Sum& sum, int roundings) {
  ASSERT_LE(std::abs(actual - sum.value), support::gamma_bound<T>(roundings) * sum.size);
}

template <class Scalar, Into kInto, bool kTransposed>
void check_multiply() {
  using T = Element<Scalar>;
  for (const auto& [rows, cols, unused] : kShapes) {
    const int n_in = kTransposed ? rows : cols, n_out = kTransposed ? cols : rows;
    const Problems<T> A = support::random_problems<T>(width_v<Scalar>, rows * cols, 1);
    const Problems<T> x = support::random_problems<T>(width_v<Scalar>, n_in, 2);
    const Problems<T> y = support::random_problems<T>(width_v<Scalar>, n_out, 3);
    const Problems<T> result =
        expect_one_answer<Scalar>(Multiply<kInto, kTransposed>{rows, cols}, A, x, y);
    for (int w = 0; w < width_v<Scalar>; ++w)
      for (int i = 0; i < n_out; ++i) {
        Sum sum;
        if (kInto == Into::kAdd) sum.add(y[w][i]);
        for (int k = 0; k < n_in; ++k)
          sum.add((long double)A[w][kTransposed ? k * cols + i : i * cols + k] * x[w][k]);
        expect_sum(result[w][i], sum, n_in + 1);
      }
  }
}

TYPED_TEST(Products, MultiplyReplaces) {
  check_multiply<TypeParam, Into::kReplace, false>();
}
TYPED_TEST(Products, MultiplyAdds) {
  check_multiply<TypeParam, Into::kAdd, false>();
}
TYPED_TEST(Products, MultiplyTransposedReplaces) {
  check_multiply<TypeParam, Into::kReplace, true>();
}
TYPED_TEST(Products, MultiplyTransposedAdds) {
  check_multiply<TypeParam, Into::kAdd, true>();
}

template <class Scalar, Into kInto>
void check_multiply_rows() {
  using T = Element<Scalar>;
  for (const Shape& shape : kShapes) {
    const auto& [rows, cols, depth] = shape;
    const Problems<T> X = support::random_problems<T>(width_v<Scalar>, rows * depth, 4);
    const Problems<T> Y = support::random_problems<T>(width_v<Scalar>, cols * depth, 5);
    const Problems<T> P = support::random_problems<T>(width_v<Scalar>, rows * cols, 6);
    const Problems<T> result =
        expect_one_answer<Scalar>(MultiplyRows<kInto>{shape, false}, X, Y, P);
    for (int w = 0; w < width_v<Scalar>; ++w)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < cols; ++j) {
          Sum sum;
          if (kInto == Into::kAdd) sum.add(P[w][i * cols + j]);
          for (int k = 0; k < depth; ++k)
            sum.add((long double)X[w][i * depth + k] * Y[w][j * depth + k]);
          expect_sum(result[w][i * cols + j], sum, depth + 1);
        }
  }
}

TYPED_TEST(Products, MultiplyRowsReplaces) {
  check_multiply_rows<TypeParam, Into::kReplace>();
}
TYPED_TEST(Products, MultiplyRowsAdds) {
  check_multiply_rows<TypeParam, Into::kAdd>();
}

/// Makes a square matrix per problem symmetric.
template <class T>
void symmetrise(Problems<T>& P, int n) {
  for (std::vector<T>& matrix : P)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < i; ++j) matrix[j * n + i] = matrix[i * n + j];
}

TYPED_TEST(Products, MultiplySymmetricHasTheBitsOfMultiply) {
  using T = Element<TypeParam>;
  for (int n : kSizes) {
    Problems<T> A = support::random_problems<T>(width_v<TypeParam>, n * n, 14);
    symmetrise(A, n);
    const Problems<T> x = support::random_problems<T>(width_v<TypeParam>, n, 15);
    const Problems<T> expected = run_multiply<Into::kReplace, TypeParam>(
        support::SerialLaunch{}, false, A, x, Problems<T>(), n, n);
    const Problems<T> result = expect_one_answer<TypeParam>(MultiplySymmetric{n}, A, x);
    for (int w = 0; w < width_v<TypeParam>; ++w)
      EXPECT_TRUE(support::same_bits(result[w], expected[w])) << n;
  }
}

TYPED_TEST(Products, MultiplyBothHasTheBitsOfTheTwoProducts) {
  using T = Element<TypeParam>;
  for (const auto& [rows, cols, unused] : kShapes) {
    const Problems<T> A = support::random_problems<T>(width_v<TypeParam>, rows * cols, 16);
    const Problems<T> x = support::random_problems<T>(width_v<TypeParam>, cols, 17);
    const Problems<T> u = support::random_problems<T>(width_v<TypeParam>, rows, 18);
    const support::SerialLaunch serial;
    Problems<T> expected =
        run_multiply<Into::kReplace, TypeParam>(serial, false, A, x, Problems<T>(), rows, cols);
    const Problems<T> second =
        run_multiply<Into::kReplace, TypeParam>(serial, true, A, u, Problems<T>(), rows, cols);
    const Problems<T> result = expect_one_answer<TypeParam>(MultiplyBoth{rows, cols}, A, x, u);
    for (int w = 0; w < width_v<TypeParam>; ++w) {
      expected[w].insert(expected[w].end(), second[w].begin(), second[w].end());
      EXPECT_TRUE(support::same_bits(result[w], expected[w])) << rows << " x " << cols;
    }
  }
}

TYPED_TEST(Products, LowerTriangleOfAGramMatrixIsMirrored) {
  using T = Element<TypeParam>;
  for (int rows : kSizes) {
    const int depth = 5;
    const Problems<T> X = support::random_problems<T>(width_v<TypeParam>, rows * depth, 7);
    Problems<T> P = support::random_problems<T>(width_v<TypeParam>, rows * rows, 8);
    symmetrise(P, rows);
    const Shape shape{rows, rows, depth};
    const Problems<T> whole = run_multiply_rows<Into::kAdd, TypeParam>(
        support::SerialLaunch{}, X, X, P, rows, rows, depth, false);
    const Problems<T> mirrored =
        expect_one_answer<TypeParam>(MultiplyRows<Into::kAdd>{shape, true}, X, X, P);
    for (int w = 0; w < width_v<TypeParam>; ++w)
      EXPECT_TRUE(support::same_bits(whole[w], mirrored[w])) << rows;
  }
}

TYPED_TEST(Products, SubtractGram) {
  using T = Element<TypeParam>;
  for (int rows : kSizes)
    for (int depth : {1, 6, 33}) {
      const Problems<T> X = support::random_problems<T>(width_v<TypeParam>, rows * depth, 9);
      Problems<T> P = support::random_problems<T>(width_v<TypeParam>, rows * rows, 10);
      symmetrise(P, rows);
      const Problems<T> result = expect_one_answer<TypeParam>(SubtractGram{rows, depth}, X, P);
      for (int w = 0; w < width_v<TypeParam>; ++w)
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < rows; ++j) {
            Sum sum;
            sum.add(P[w][i * rows + j]);
            for (int k = 0; k < depth; ++k)
              sum.add(-(long double)X[w][i * depth + k] * X[w][j * depth + k]);
            expect_sum(result[w][i * rows + j], sum, depth + 1);
            EXPECT_EQ(result[w][i * rows + j], result[w][j * rows + i]);
          }
    }
}

TYPED_TEST(Products, AddWeightedGram) {
  using T = Element<TypeParam>;
  for (int n : kSizes)
    for (int rows : {1, 7, 33}) {
      const Problems<T> Q = support::random_problems<T>(width_v<TypeParam>, n * n, 11);
      const Problems<T> G = support::random_problems<T>(width_v<TypeParam>, rows * n, 12);
      const Problems<T> weight = support::random_problems<T>(width_v<TypeParam>, rows, 13);
      const Problems<T> H = expect_one_answer<TypeParam>(AddWeightedGram{n, rows}, Q, G, weight);
      for (int w = 0; w < width_v<TypeParam>; ++w)
        for (int i = 0; i < n; ++i)
          for (int j = 0; j <= i; ++j) {
            Sum sum;
            sum.add(Q[w][i * n + j]);
            for (int k = 0; k < rows; ++k)
              sum.add((long double)G[w][k * n + i] * weight[w][k] * G[w][k * n + j]);
            expect_sum(H[w][i * n + j], sum, rows + 2);  // the weighted factor is rounded too
          }
    }
}

TYPED_TEST(Products, HandValues) {
  using T = Element<TypeParam>;
  auto all = [](std::vector<T> values) { return Problems<T>(width_v<TypeParam>, values); };
  const support::SerialLaunch serial;
  const auto A = all({1, 2, 3, 4, 5, 6}), y = all({10, 20});
  EXPECT_EQ(
      (run_multiply<Into::kReplace, TypeParam>(serial, false, A, all({1, 0, -1}), y, 2, 3)[0]),
      (std::vector<T>{-2, -2}));
  EXPECT_EQ((run_multiply<Into::kAdd, TypeParam>(serial, false, A, all({1, 0, -1}), y, 2, 3)[0]),
            (std::vector<T>{8, 18}));
  EXPECT_EQ((run_multiply<Into::kReplace, TypeParam>(serial, true, A, all({1, -1}), y, 2, 3)[0]),
            (std::vector<T>{-3, -3, -3}));
  EXPECT_EQ((run_multiply_rows<Into::kReplace, TypeParam>(serial, A, A, A, 2, 2, 3, true)[0]),
            (std::vector<T>{14, 32, 32, 77}));
  EXPECT_EQ(run_subtract_gram<TypeParam>(serial, A, all({14, 32, 32, 78}), 2, 3)[0],
            (std::vector<T>{0, 0, 0, 1}));
  EXPECT_EQ(run_add_weighted_gram<TypeParam>(serial, all({1, 0, 0, 1}), all({1, 2, 3, 4}),
                                             all({2, 1}), 2, 2)[0],
            (std::vector<T>{12, 0, 16, 25}));
}

TYPED_TEST(Products, NoColumnsGiveZero) {
  using T = Element<TypeParam>;
  const Problems<T> none(width_v<TypeParam>), y(width_v<TypeParam>, {3, 4});
  const support::SerialLaunch serial;
  EXPECT_EQ((run_multiply<Into::kReplace, TypeParam>(serial, false, none, none, y, 2, 0)[0]),
            (std::vector<T>{0, 0}));
  EXPECT_EQ((run_multiply<Into::kAdd, TypeParam>(serial, false, none, none, y, 2, 0)[0]),
            (std::vector<T>{3, 4}));
}

}  // namespace
}  // namespace torchqp::linalg
