#pragma once
// Scratch memory is the caller's. A routine's arrays are taken from an Arena by one constructor,
// and its size is found by running that same constructor over an empty Arena: the two cannot
// disagree.

#include <cstdint>

#include "core/config.hpp"

namespace torchqp::qp {

/// How often a piece of scratch memory is gone over, hottest first. Where fast memory is short (the
/// shared memory of a GPU) an Arena keeps the hottest pieces there and the others elsewhere.
enum class Heat : int {
  kVector,  ///< iterates, residuals, lists
  kFactor,  ///< what an iteration factors: K, H
  kSystem,  ///< what it is formed from: T, the condensed base
  kSetup,   ///< factors and products that are made once: L, V, X, U
  kData,    ///< Q, G, A
};

/// Hands out consecutive pieces of one block, or of two, by heat. With null blocks it only counts.
template <class Scalar>
struct Arena {
  Scalar* block = nullptr;
  int64_t used = 0;            ///< scalars taken of it so far
  Heat coldest = Heat::kData;  ///< pieces colder than this come from the cold block
  Scalar* cold_block = nullptr;
  int64_t cold_used = 0;
  /// Whether forms of which one is used after the other may lie in the same memory. Only where a
  /// Scalar holds one problem: the problems of a pack use both.
  bool overlays = false;

  TORCHQP_HD Scalar* take(int64_t count, Heat heat = Heat::kVector) {
    Scalar* const from = heat > coldest ? cold_block : block;
    int64_t& taken = heat > coldest ? cold_used : used;
    Scalar* piece = from == nullptr ? nullptr : from + taken;
    taken += count;
    return piece;
  }

  /// Goes on behind whichever of the two has taken more.
  TORCHQP_HD void join(const Arena& other) {
    if (other.used > used) used = other.used;
    if (other.cold_used > cold_used) cold_used = other.cold_used;
  }
};

}  // namespace torchqp::qp
