#pragma once
// Scratch memory is the caller's. A routine's arrays are taken from an Arena by one constructor,
// and its size is found by running that same constructor over an empty Arena: the two cannot
// disagree.

#include <cstdint>

#include "core/config.hpp"

namespace torchqp::qp {

/// Hands out consecutive pieces of one block. With a null block it only counts.
template <class Scalar>
struct Arena {
  Scalar* block = nullptr;
  int64_t used = 0;  ///< scalars taken so far

  TORCHQP_HD Scalar* take(int64_t count) {
    Scalar* piece = block == nullptr ? nullptr : block + used;
    used += count;
    return piece;
  }
};

}  // namespace torchqp::qp
