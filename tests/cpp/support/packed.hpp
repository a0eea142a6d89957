#pragma once
// Data of several problems and how it enters and leaves Scalars (float, double, Pack).

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/pack.hpp"
#include "support/scratch.hpp"

namespace torchqp::support {

/// One vector (or row-major matrix) per problem.
template <class T>
using Problems = std::vector<std::vector<T>>;

/// `count` vectors of standard normal numbers; vector w depends on seed + w alone.
template <class T>
Problems<T> random_problems(int count, size_t length, unsigned seed) {
  Problems<T> result(count);
  for (int w = 0; w < count; ++w) {
    std::mt19937 generator(seed + w);
    std::normal_distribution<double> normal;
    result[w].resize(length);
    for (T& x : result[w]) x = static_cast<T>(normal(generator));
  }
  return result;
}

/// A poisoned [padded_rows, stride] block whose last row ends after `padded_cols` entries, holding
/// a [rows, cols] matrix per problem, `diagonal` on the padded diagonal and zero elsewhere in the
/// padding.
template <class Scalar>
Scalar* pack_matrix(Scratch& scratch, const Problems<Element<Scalar>>& values, int rows, int cols,
                    int padded_rows, int padded_cols, int stride, double diagonal) {
  const size_t size = padded_rows == 0 ? 0 : size_t(padded_rows - 1) * stride + padded_cols;
  Scalar* block = scratch.get<Element<Scalar>, Scalar>(size);
  for (int i = 0; i < padded_rows; ++i)
    for (int j = 0; j < padded_cols; ++j)
      for (int w = 0; w < width_v<Scalar>; ++w) {
        const bool inside = i < rows && j < cols;
        const double padding = i == j ? diagonal : 0.0;
        set(block[i * stride + j], w,
            inside ? values[w][i * cols + j] : static_cast<Element<Scalar>>(padding));
      }
  return block;
}

/// A block of `padded` entries holding a vector per problem, then zeros.
template <class Scalar>
Scalar* pack_vector(Scratch& scratch, const Problems<Element<Scalar>>& values, int length,
                    int padded) {
  return pack_matrix<Scalar>(scratch, values, 1, length, 1, padded, padded, 0.0);
}

/// The [rows, cols] corner of a block, per problem.
template <class Scalar>
Problems<Element<Scalar>> unpack_matrix(const Scalar* block, int rows, int cols, int stride) {
  Problems<Element<Scalar>> result(width_v<Scalar>);
  for (int w = 0; w < width_v<Scalar>; ++w)
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; ++j) result[w].push_back(get(block[i * stride + j], w));
  return result;
}

template <class Scalar>
Problems<Element<Scalar>> unpack_vector(const Scalar* block, int length) {
  return unpack_matrix(block, 1, length, length);
}

/// Copies `count` entries so that, in general, another lane reads an entry than wrote it: what a
/// routine that ends with a barrier allows.
template <class Team, class Scalar>
void read_back(const Team& team, const Scalar* from, Scalar* to, int count) {
  team.for_each(count, [&](int i) { to[count - 1 - i] = from[count - 1 - i]; });
}

/// Equal bits; all NaNs count as equal, for their payload depends on the order of operands.
template <class T>
bool same_bits(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i])) return false;
  return true;
}

/// Higham's gamma_k = k u / (1 - k u) with u = eps / 2: the relative error of k roundings.
template <class T>
long double gamma_bound(int k) {
  const long double u = std::numeric_limits<T>::epsilon() / 2;
  return k * u / (1 - k * u);
}

}  // namespace torchqp::support
