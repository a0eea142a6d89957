#pragma once
// What is left of a result when it is written as another type: single precision is solved again in
// double precision where it failed, and double precision has solutions that a float cannot hold.

#include <limits>

#include "qp/result.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Where T can hold the point, wherever that is finite.
///
/// Team: any lanes; the result is visible to them on entry; without a sync, each reads all of it.
template <class T, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> held_by(const Shape& s, const Result<Scalar>& result) {
  if constexpr (sizeof(T) == sizeof(Element<Scalar>)) {
    return broadcast_mask<Scalar>(true);
  } else {
    const Scalar most = broadcast<Scalar>(std::numeric_limits<T>::max());
    auto held = broadcast_mask<Scalar>(true);
    const auto look = [&](const Scalar* values, int count) {
      for (int i = 0; i < count; ++i) {
        const auto beyond = both(is_finite(values[i]), absolute(values[i]) > most);
        held = both(held, negate(beyond));
      }
    };
    look(result.z, s.n), look(result.nu, s.p), look(result.lam, s.k);
    return held;
  }
}

/// The status of what is written: a point that T cannot hold is no solution.
template <class Scalar>
TORCHQP_HD Scalar written_status(const Result<Scalar>& result, MaskOf<Scalar> held) {
  const Scalar status = result.status[0];
  const auto lost = both(status <= broadcast<Scalar>(1), negate(held));
  return select(lost, broadcast<Scalar>(static_cast<int>(Status::kNumericalError)), status);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
