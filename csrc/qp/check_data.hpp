#pragma once
// Which problems can be solved at all: finite data, sides that do not cross.

#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// 0 where this lane's share of the entries is finite, else NaN: max_all makes it that of all entries.
template <class Team, class Scalar>
TORCHQP_HD_CALL Scalar unless_finite(const Team& team, const Scalar* values, int64_t count) {
  // x - x is 0 for finite x and NaN otherwise: sums over the array tell, several side by side
  // because each has to wait for itself.
  constexpr int kSums = 8;
  const int step = team.size();
  Scalar sums[kSums];
  TORCHQP_UNROLL
  for (int c = 0; c < kSums; ++c) sums[c] = broadcast<Scalar>(0);
  int64_t i = team.lane();
  TORCHQP_ROLLED
  for (; i + (kSums - 1) * step < count; i += kSums * step) {
    TORCHQP_UNROLL
    for (int c = 0; c < kSums; ++c)
      sums[c] = sums[c] + (values[i + c * step] - values[i + c * step]);
  }
  TORCHQP_ROLLED
  for (; i < count; i += step) sums[0] = sums[0] + (values[i] - values[i]);
  Scalar sum = sums[0];
  TORCHQP_UNROLL
  for (int c = 1; c < kSums; ++c) sum = sum + sums[c];
  return sum;
}

/// Problems whose matrices are finite.
///
/// Team: every lane calls; the data are visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD MaskOf<Scalar> finite_matrices(const Team& team, const Data<Scalar>& data) {
  const Shape& s = data.shape;
  Scalar sum[1] = {unless_finite(team, data.Q, s.diagonal ? s.np : int64_t{s.np} * s.np)};
  sum[0] = sum[0] + unless_finite(team, data.G, int64_t{s.mp} * s.np);
  sum[0] = sum[0] + unless_finite(team, data.A, int64_t{s.pp} * s.np);
  team.template max_all<Site::kStart>(sum);
  return sum[0] == broadcast<Scalar>(0);
}

/// What is wrong with the vectors of each problem.
template <class Scalar>
struct VectorFaults {
  MaskOf<Scalar> invalid;  ///< not finite, or sides that cross
  MaskOf<Scalar> empty;    ///< an upper side at -inf or a lower side at +inf
};

/// Team: every lane calls; the data are visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL VectorFaults<Scalar> check_vectors(const Team& team, const Data<Scalar>& data) {
  const Shape& s = data.shape;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  Scalar faults[3] = {unless_finite(team, data.q, s.np) + unless_finite(team, data.b, s.pp), zero,
                      zero};
  Scalar &crossed = faults[1], &empty = faults[2];
  team.for_each(s.k, [&](int i) {
    const auto ordered = data.lower[i] <= data.upper[i];  // false for NaN
    const auto beyond = either(data.upper[i]<-most, data.lower[i]> most);
    const auto number = both(data.lower[i] == data.lower[i], data.upper[i] == data.upper[i]);
    crossed = select(either(ordered, both(beyond, number)), crossed, one);
    empty = select(beyond, one, empty);
  });
  team.template max_all<Site::kStart>(faults);
  return {negate(both(faults[0] == zero, crossed == zero)), empty > zero};
}

}  // namespace detail
TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
