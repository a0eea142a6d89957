#pragma once
// Between the caller's strided tensors and the solver's packs: lane w of a pack is member
// members[w] of the batch.

#include <algorithm>
#include <cstring>
#include <limits>
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
};

namespace detail {

template <class T, int W, int... kLane>
TORCHQP_HD void interleave(Pack<T, W>& low, Pack<T, W>& high, Pack<T, W> a, Pack<T, W> b,
                           std::integer_sequence<int, kLane...>) {
  low = {__builtin_shufflevector(a.v, b.v, (kLane % 2 * W + kLane / 2)...)};
  high = {__builtin_shufflevector(a.v, b.v, (kLane % 2 * W + kLane / 2 + W / 2)...)};
}

/// rows[i][j] <-> rows[j][i]: interleaving the first half with the second log2(W) times.
template <class T, int W>
TORCHQP_HD void transpose(Pack<T, W> (&rows)[W]) {
  TORCHQP_UNROLL
  for (int stage = 1; stage < W; stage *= 2) {
    Pack<T, W> next[W];
    TORCHQP_UNROLL
    for (int i = 0; i < W / 2; ++i) {
      interleave(next[2 * i], next[2 * i + 1], rows[i], rows[i + W / 2],
                 std::make_integer_sequence<int, W>());
    }
    TORCHQP_UNROLL
    for (int i = 0; i < W; ++i) rows[i] = next[i];
  }
}

}  // namespace detail

/// Entries of the W members of a pack, one after the other: a square of W entries of W members is
/// read (written) along the members' memory and transposed in registers.
template <class Scalar, class T>
class PackReader {
  static constexpr int kWidth = width_v<Scalar>;
  static constexpr bool kTransposes = std::is_same_v<Element<Scalar>, T> && kWidth > 1;

 public:
  /// Reads `count` entries of each member, `stride` apart.
  PackReader(const T* const (&start)[kWidth], int64_t stride, int64_t count)
      : stride_(stride), count_(count) {
    for (int w = 0; w < kWidth; ++w) start_[w] = start[w];
  }

  Scalar next() {
    Scalar value = broadcast<Scalar>(0);  // compilers do not see through read at every level
    read(1, [&](Scalar entry) { value = entry; });
    return value;
  }

  /// put(entry) for each of the next `count` entries.
  template <class Put>
  TORCHQP_HD void read(int64_t count, Put put) {
    if constexpr (kTransposes) {
      int slot = static_cast<int>(at_ % kWidth);
      at_ += count;
      while (count > 0) {
        if (slot == 0) fill(at_ - count);
        const int stop = count < kWidth - slot ? slot + static_cast<int>(count) : kWidth;
        count -= stop - slot;
        for (; slot < stop; ++slot) put(block_[slot]);
        slot = 0;
      }
    } else {
      if constexpr (kWidth == 1) {
        if (stride_ == 1) {
          const T* from = start_[0] + at_;
          for (int64_t i = 0; i < count; ++i) put(static_cast<Scalar>(from[i]));
          at_ += count;
          return;
        }
      }
      for (; count > 0; --count, ++at_) {
        Scalar value;
        for (int w = 0; w < kWidth; ++w)
          set(value, w, static_cast<Element<Scalar>>(start_[w][at_ * stride_]));
        put(value);
      }
    }
  }

 private:
  TORCHQP_HD void fill(int64_t at) {
    if (stride_ == 1 && at + kWidth <= count_) {
      Scalar rows[kWidth];
      TORCHQP_UNROLL
      for (int w = 0; w < kWidth; ++w) memcpy(&rows[w], start_[w] + at, sizeof(Scalar));
      detail::transpose(rows);
      TORCHQP_UNROLL
      for (int w = 0; w < kWidth; ++w) block_[w] = rows[w];
    } else {
      for (int i = 0; i < kWidth && at + i < count_; ++i) {
        for (int w = 0; w < kWidth; ++w) set(block_[i], w, start_[w][(at + i) * stride_]);
      }
    }
  }

  const T* start_[kWidth];
  int64_t stride_, count_, at_ = 0;
  Scalar block_[kTransposes ? kWidth : 1] = {};
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
    PackReader<Scalar, T> reader(Starts<T, W>(from, members).of, from.row, given);
    Scalar* next = to;
    reader.read(given, [&](Scalar entry) { *next = entry, next += stride; });
  }
  for (int i = given; i < padded; ++i) to[i * stride] = broadcast<Scalar>(absent);
}

/// to(i, j) = member's from(i, j); padding zero.
template <class Scalar, class T, int W>
void load_matrix(Scalar* to, int stride, int padded_rows, const StridedArray<T>& from, int rows,
                 int cols, const Members<W>& members) {
  const Scalar zero = broadcast<Scalar>(0);
  const int given = from.data == nullptr ? 0 : rows;
  const auto put_row = [&](int i, PackReader<Scalar, T>& reader) {
    Scalar* row = to + int64_t{i} * stride;
    reader.read(cols, [&](Scalar entry) { *row++ = entry; });
    for (int j = cols; j < stride; ++j) *row++ = zero;
  };
  if (given > 0) {
    Starts<T, W> starts(from, members);
    if (from.col == 1 && from.row == cols) {
      PackReader<Scalar, T> reader(starts.of, 1, int64_t{rows} * cols);
      for (int i = 0; i < rows; ++i) put_row(i, reader);
    } else {
      for (int i = 0; i < rows; ++i) {
        PackReader<Scalar, T> reader(starts.of, from.col, cols);
        put_row(i, reader);
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
