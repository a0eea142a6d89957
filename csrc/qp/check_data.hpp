#pragma once
// Which problems can be solved at all: finite data, sides that do not cross.

#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// Whether all entries are finite, per problem.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> all_finite(const Scalar* values, int64_t count) {
  // x - x is 0 for finite x and NaN otherwise: sums over the array tell, several side by side
  // because each has to wait for itself.
  constexpr int kSums = 8;
  Scalar sums[kSums];
  TORCHQP_UNROLL
  for (int c = 0; c < kSums; ++c) sums[c] = broadcast<Scalar>(0);
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    TORCHQP_UNROLL
    for (int c = 0; c < kSums; ++c) sums[c] = sums[c] + (values[i + c] - values[i + c]);
  }
  for (; i < count; ++i) sums[0] = sums[0] + (values[i] - values[i]);
  Scalar sum = sums[0];
  TORCHQP_UNROLL
  for (int c = 1; c < kSums; ++c) sum = sum + sums[c];
  return sum == broadcast<Scalar>(0);
}

template <class Scalar>
TORCHQP_HD MaskOf<Scalar> finite_matrices(const Data<Scalar>& data) {
  const Shape& s = data.shape;
  const auto Q = all_finite(data.Q, s.diagonal ? s.np : int64_t{s.np} * s.np);
  const auto G = all_finite(data.G, int64_t{s.mp} * s.np);
  return both(both(Q, G), all_finite(data.A, int64_t{s.pp} * s.np));
}

/// Problems whose vectors are finite, with sides that do not cross.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> valid_vectors(const Data<Scalar>& data) {
  const Shape& s = data.shape;
  auto valid = both(all_finite(data.q, s.np), all_finite(data.b, s.pp));
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  for (int i = 0; i < s.k; ++i) {
    const auto ordered = data.lower[i] <= data.upper[i];  // false for NaN
    const auto beyond = either(data.upper[i]<-most, data.lower[i]> most);
    const auto number = both(data.lower[i] == data.lower[i], data.upper[i] == data.upper[i]);
    valid = both(valid, either(ordered, both(beyond, number)));
  }
  return valid;
}

/// Problems with an upper side at -inf or a lower side at +inf.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> empty_sides(const Data<Scalar>& data) {
  auto empty = broadcast_mask<Scalar>(false);
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  for (int i = 0; i < data.shape.k; ++i) {
    empty = either(empty, either(data.upper[i]<-most, data.lower[i]> most));
  }
  return empty;
}

}  // namespace detail
TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
