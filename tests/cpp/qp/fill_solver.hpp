#pragma once
// The first width_v<Scalar> problems of a batch as the data of a Solver.

#include <cmath>
#include <limits>
#include <vector>

#include "qp/data.hpp"
#include "support/packed.hpp"
#include "support/qp.hpp"

namespace torchqp::qp {

/// Fills Q, G and A with problem `w` of the batch in lane w, padded as qp/data.hpp asks.
template <class Scalar>
void fill_matrices(const Data<Scalar>& data, const support::QpBatch<Element<Scalar>>& batch) {
  using T = Element<Scalar>;
  const Shape& s = data.shape;
  for (int w = 0; w < width_v<Scalar>; ++w) {
    const auto matrix = [&](Scalar* to, const std::vector<T>& from, int rows, int cols,
                            int padded) {
      for (int i = 0; i < padded; ++i)
        for (int j = 0; j < s.np; ++j)
          set(to[i * s.np + j], w,
              i < rows && j < cols ? from[(size_t(w) * rows + i) * cols + j] : T(0));
    };
    for (int i = 0; i < s.np && s.diagonal; ++i)
      set(data.Q[i], w, i < s.n ? batch.Q[w * s.n + i] : T(1));
    for (int i = 0; i < s.np && !s.diagonal; ++i)
      for (int j = 0; j < s.np; ++j) {
        T value = i == j ? 1 : 0;
        if (i < s.n && j < s.n && batch.dims.diagonal) value = i == j ? batch.Q[w * s.n + i] : 0;
        if (i < s.n && j < s.n && !batch.dims.diagonal)
          value = (batch.Q[(w * s.n + i) * s.n + j] + batch.Q[(w * s.n + j) * s.n + i]) / 2;
        set(data.Q[i * s.np + j], w, value);
      }
    matrix(data.G, batch.G, s.m, s.n, s.mp);
    matrix(data.A, batch.A, s.p, s.n, s.pp);
  }
}

/// Fills all data of a solve.
template <class Scalar>
void fill_data(const Data<Scalar>& data, const support::QpBatch<Element<Scalar>>& batch) {
  using T = Element<Scalar>;
  const Shape& s = data.shape;
  const T infinity = std::numeric_limits<T>::infinity();
  fill_matrices(data, batch);
  for (int w = 0; w < width_v<Scalar>; ++w) {
    for (int i = 0; i < s.np; ++i) set(data.q[i], w, i < s.n ? batch.q[w * s.n + i] : T(0));
    for (int i = 0; i < s.pp; ++i) set(data.b[i], w, i < s.p ? batch.b[w * s.p + i] : T(0));
    const auto sides = [&](Scalar* to, const std::vector<T>& rows, const std::vector<T>& bounds,
                           T none) {
      for (int i = 0; i < s.k; ++i) {
        const bool row = i < s.mp;
        const int index = row ? i : i - s.mp, length = row ? s.m : s.n;
        const std::vector<T>& from = row ? rows : bounds;
        T value = none;
        if (index < length && !from.empty()) value = from[w * length + index];
        if (std::abs(value) >= T(kInfinity)) value = value > 0 ? infinity : -infinity;
        set(to[i], w, value);
      }
    };
    sides(data.lower, batch.h_lower, batch.lb, -infinity);
    sides(data.upper, batch.h, batch.ub, infinity);
  }
}

}  // namespace torchqp::qp
