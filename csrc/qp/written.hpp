#pragma once
// What is left of a result when it is written: in the caller's units a multiplier can overflow, and
// what was solved in double precision for float data can be a point that a float cannot hold.

#include <limits>

#include "qp/result.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Where z, nu and lam, of a point or of a derivative, are finite and T can hold them.
///
/// Team: any lanes; the values are visible to them on entry; without a sync, each reads all of them.
template <class T, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> held_by(const Shape& s, const Scalar* z, const Scalar* nu,
                                       const Scalar* lam) {
  const Scalar most = broadcast<Scalar>(std::numeric_limits<T>::max());
  auto held = broadcast_mask<Scalar>(true);
  const auto look = [&](const Scalar* values, int count) {
    TORCHQP_ROLLED
    for (int i = 0; i < count; ++i) held = both(held, absolute(values[i]) <= most);
  };
  look(z, s.n), look(nu, s.p), look(lam, s.k);
  return held;
}

/// The status of what is written: a point that is not held is no solution.
template <class Scalar>
TORCHQP_HD Scalar written_status(const Result<Scalar>& result, MaskOf<Scalar> held) {
  const Scalar status = result.status[0];
  const auto lost = both(status <= broadcast<Scalar>(1), negate(held));
  return select(lost, broadcast<Scalar>(static_cast<int>(Status::kNumericalError)), status);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
