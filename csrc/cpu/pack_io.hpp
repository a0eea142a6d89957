#pragma once
// Between the caller's strided tensors and the solver's packs: lane w of a pack is member
// members[w] of the batch.

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

#include "qp/data.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The members of the batch in one pack. Lanes beyond `count` repeat the last member and are never
/// written back.
template <int W>
struct Members {
  int64_t index[W];
  int count;

  Members(int64_t begin, int64_t end) : count(static_cast<int>(end - begin < W ? end - begin : W)) {
    for (int w = 0; w < W; ++w) index[w] = begin + (w < count ? w : count - 1);
  }
  /// The first of `listed`, at least one and at most W.
  explicit Members(std::span<const int64_t> listed)
      : count(static_cast<int>(std::min<size_t>(listed.size(), W))) {
    index[0] = listed[0];
    for (int w = 1; w < W; ++w) index[w] = w < count ? listed[w] : index[w - 1];
  }
};

namespace detail {

/// Exchanges the squares of kSize lanes beside the diagonal between two rows that lie kSize apart.
template <int kSize, class T, int W, int... kLane>
TORCHQP_HD void exchange(Pack<T, W>& a, Pack<T, W>& b, std::integer_sequence<int, kLane...>) {
  const auto low =
      __builtin_shufflevector(a.v, b.v, (kLane & kSize ? W + kLane - kSize : kLane)...);
  const auto high =
      __builtin_shufflevector(a.v, b.v, (kLane & kSize ? W + kLane : kLane + kSize)...);
  a = {low}, b = {high};
}

/// rows[i][j] <-> rows[j][i], by squares of one lane, then two, ...: for four doubles eight
/// instructions that move within or between halves of a register.
template <int kSize = 1, class T, int W>
TORCHQP_HD void transpose(Pack<T, W> (&rows)[W]) {
  TORCHQP_UNROLL
  for (int i = 0; i < W; ++i) {
    if ((i & kSize) == 0)
      exchange<kSize>(rows[i], rows[i + kSize], std::make_integer_sequence<int, W>());
  }
  if constexpr (2 * kSize < W) transpose<2 * kSize>(rows);
}

}  // namespace detail

/// Entries of the W members of a pack: a square of W entries of W members is read along the
/// members' memory and transposed in registers.
template <class Scalar, class T>
class PackReader {
  static constexpr int kWidth = width_v<Scalar>;
  static constexpr bool kTransposes = std::is_same_v<Element<Scalar>, T> && kWidth > 1;

 public:
  /// Reads from `count` entries of each member, `stride` apart.
  PackReader(const T* const (&start)[kWidth], int64_t stride, int64_t count)
      : stride_(stride), count_(count) {
    for (int w = 0; w < kWidth; ++w) start_[w] = start[w];
  }

  /// to[j * step] = entry at + j of each member, for j < count.
  TORCHQP_HD void read(int64_t at, int64_t count, Scalar* to, int64_t step = 1) const {
    if constexpr (kTransposes) {
      if (stride_ == 1 && count_ >= kWidth) {
        for (; count >= kWidth; count -= kWidth, at += kWidth, to += kWidth * step) {
          Scalar block[kWidth];
          fetch(at, block);
          TORCHQP_UNROLL
          for (int j = 0; j < kWidth; ++j) to[j * step] = block[j];
        }
        if (count > 0) {
          // The square that ends with the array holds what is left of it.
          const int64_t begin = std::min(at, count_ - kWidth);
          Scalar block[kWidth];
          fetch(begin, block);
          for (int64_t j = 0; j < count; ++j) to[j * step] = block[at - begin + j];
        }
        return;
      }
    } else if constexpr (kWidth == 1) {
      if (stride_ == 1) {
        const T* from = start_[0] + at;
        for (int64_t j = 0; j < count; ++j) to[j * step] = static_cast<Scalar>(from[j]);
        return;
      }
    }
    for (int64_t j = 0; j < count; ++j) {
      Scalar value;
      for (int w = 0; w < kWidth; ++w)
        set(value, w, static_cast<Element<Scalar>>(start_[w][(at + j) * stride_]));
      to[j * step] = value;
    }
  }

 private:
  TORCHQP_HD void fetch(int64_t at, Scalar (&block)[kWidth]) const {
    TORCHQP_UNROLL
    for (int w = 0; w < kWidth; ++w) memcpy(&block[w], start_[w] + at, sizeof(Scalar));
    detail::transpose(block);
  }

  const T* start_[kWidth];
  int64_t stride_, count_;
};

/// The reverse: entry after entry of the first `members.count` members, to where each begins.
template <class Scalar, class T>
class PackWriter {
  static constexpr int kWidth = width_v<Scalar>;
  static constexpr bool kTransposes = std::is_same_v<Element<Scalar>, T> && kWidth > 1;

 public:
  /// Member w's entries go to to + members.index[w] * size.
  PackWriter(T* to, int64_t size, const Members<kWidth>& members) : count_(members.count) {
    for (int w = 0; w < kWidth; ++w) to_[w] = to + members.index[w] * size;
  }
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  void put(Scalar value) {
    if constexpr (kTransposes) {
      block_[filled_++] = value;
      if (filled_ == kWidth) {
        detail::transpose(block_);
        for (int w = 0; w < count_; ++w) {
          memcpy(to_[w], &block_[w], sizeof(Scalar));
          to_[w] += kWidth;
        }
        filled_ = 0;
      }
    } else {
      for (int w = 0; w < count_; ++w) *to_[w]++ = static_cast<T>(get(value, w));
    }
  }

  /// Writes what is left, then `zeros` zeros.
  void finish(int64_t zeros = 0) {
    for (int w = 0; w < count_; ++w) {
      if constexpr (kTransposes) {
        for (int i = 0; i < filled_; ++i) *to_[w]++ = get(block_[i], w);
      }
      std::fill_n(to_[w], zeros, T(0));
    }
    filled_ = 0;
  }

 private:
  T* to_[kWidth];
  int count_, filled_ = 0;
  Scalar block_[kTransposes ? kWidth : 1];
};

/// Member w's first entry.
template <class T, int W>
struct Starts {
  const T* of[W];

  Starts(const StridedArray<T>& from, const Members<W>& members) {
    for (int w = 0; w < W; ++w) of[w] = from.data + from.batch.offset(members.index[w]);
  }
};

/// to[i] = member's from(i), or `absent` when the argument is not there; to[size .. padded) =
/// `absent`. Entries of `to` lie `stride` apart.
template <class Scalar, class T, int W>
void load_vector(Scalar* to, int padded, const StridedArray<T>& from, int size, double absent,
                 const Members<W>& members, int64_t stride = 1) {
  const int given = from.data == nullptr ? 0 : size;
  if (given > 0) {
    const PackReader<Scalar, T> reader(Starts<T, W>(from, members).of, from.row, given);
    reader.read(0, given, to, stride);
  }
  for (int i = given; i < padded; ++i) to[i * stride] = broadcast<Scalar>(absent);
}

/// to(i, j) = member's from(i, j); padding zero.
template <class Scalar, class T, int W>
void load_matrix(Scalar* to, int stride, int padded_rows, const StridedArray<T>& from, int rows,
                 int cols, const Members<W>& members) {
  const Scalar zero = broadcast<Scalar>(0);
  const int given = from.data == nullptr ? 0 : rows;
  const auto put_row = [&](int i, const PackReader<Scalar, T>& reader, int64_t at) {
    Scalar* row = to + int64_t{i} * stride;
    reader.read(at, cols, row);
    for (int j = cols; j < stride; ++j) row[j] = zero;
  };
  if (given > 0) {
    Starts<T, W> starts(from, members);
    if (from.col == 1 && from.row == cols) {
      const PackReader<Scalar, T> reader(starts.of, 1, int64_t{rows} * cols);
      for (int i = 0; i < rows; ++i) put_row(i, reader, int64_t{i} * cols);
    } else {
      for (int i = 0; i < rows; ++i) {
        put_row(i, PackReader<Scalar, T>(starts.of, from.col, cols), 0);
        for (int w = 0; w < W; ++w) starts.of[w] += from.row;
      }
    }
  }
  for (int64_t i = int64_t{given} * stride; i < int64_t{padded_rows} * stride; ++i) to[i] = zero;
}

/// to = (Q + Q') / 2, or diag(Q), or the diagonal itself where the shape keeps it; padding
/// identity.
template <class Scalar, class T, int W>
void load_hessian(Scalar* to, const qp::Shape& s, const StridedArray<T>& Q, bool diagonal,
                  const Members<W>& members) {
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  if (s.diagonal) {
    load_vector(to, s.np, Q, s.n, 1, members);
    return;
  }
  if (diagonal) {
    for (int64_t i = 0; i < int64_t{s.np} * s.np; ++i) to[i] = zero;
    load_vector(to, s.np, Q, s.n, 1, members, s.np + 1);
    return;
  }
  load_matrix(to, s.np, s.np, Q, s.n, s.n, members);
  for (int i = 0; i < s.n; ++i) {
    for (int j = 0; j < i; ++j) {
      Scalar &below = to[int64_t{i} * s.np + j], &above = to[int64_t{j} * s.np + i];
      below = half * below + half * above;
      above = below;
    }
  }
  for (int i = s.n; i < s.np; ++i) to[int64_t{i} * (s.np + 1)] = broadcast<Scalar>(1);
}

/// Bounds of rows, then of variables; from kInfinity on they are infinite.
template <class Scalar, class T, int W>
void load_sides(Scalar* to, const qp::Shape& s, const StridedArray<T>& rows,
                const StridedArray<T>& variables, double absent, const Members<W>& members) {
  load_vector(to, s.mp, rows, s.m, absent, members);
  if (s.bounds) load_vector(to + s.mp, s.np, variables, s.n, absent, members);
  const Scalar most = broadcast<Scalar>(kInfinity),
               infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  for (int i = 0; i < s.k; ++i) {
    to[i] = select(to[i] >= most, infinity, to[i]);
    to[i] = select(to[i] <= -most, -infinity, to[i]);
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
