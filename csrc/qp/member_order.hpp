#pragma once
// The order in which the members of a batch are solved: those with the same matrices one after the
// other, so that what is formed of the matrices is formed once.

#include "core/problem.hpp"

namespace torchqp::qp {

/// A renumbering of the members 0 .. size - 1. Where Q, G and A repeat after some members (the two
/// sides of an LPGD step, say), a pack of `width` members is followed by its repetitions.
class MemberOrder {
 public:
  template <class T>
  TORCHQP_HD MemberOrder(const ProblemBatch<T>& problem, int width)
      : size_(problem.size), width_(width) {
    const int64_t Q = period_of(problem.Q), G = period_of(problem.G), A = period_of(problem.A);
    const int64_t longest = larger(Q, larger(G, A));
    const bool regular =
        size_ % longest == 0 && longest % Q == 0 && longest % G == 0 && longest % A == 0;
    // Where all members share, any order will do.
    period_ = regular && longest > 1 ? longest : larger(size_, 1);
    times_ = larger(size_ / period_, 1);
    repeats_ = times_ > 1 || (longest == 1 && size_ > width_);
  }

  /// How often the members with the same matrices repeat: so many places in a row are one group.
  TORCHQP_HD int64_t times() const { return times_; }

  /// Whether packs follow each other that have the same matrices.
  TORCHQP_HD bool repeats() const { return repeats_; }

  /// Consecutive members, at most `width`.
  struct Run {
    int64_t member;
    int64_t length;
  };

  /// The members that stand at `place` in the order and directly after it, before `end`.
  TORCHQP_HD Run run(int64_t place, int64_t end) const {
    const int64_t group = place / (times_ * width_);
    const int64_t first = group * width_;
    const int64_t length = smaller(width_, period_ - first);
    const int64_t within = place - group * times_ * width_;
    const int64_t skipped = within % length;
    return {within / length * period_ + first + skipped, smaller(length - skipped, end - place)};
  }

 private:
  TORCHQP_HD static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
  TORCHQP_HD static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  /// Members after which an argument repeats: BatchLayout::offset wraps around there.
  template <class T>
  TORCHQP_HD static int64_t period_of(const StridedArray<T>& array) {
    int64_t period = 1;
    for (int d = 0; array.data != nullptr && d < array.batch.ndim; ++d)
      period *= array.batch.sizes[d];
    return larger(period, 1);
  }

  int64_t size_, width_, times_, period_;
  bool repeats_;
};

}  // namespace torchqp::qp
