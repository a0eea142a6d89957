#pragma once
// Between the caller's strided tensors and the solver's packs: lane w of a pack is member
// members[w] of the batch.

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

#include "qp/data.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

template <class T>
inline constexpr int kWidth = kRegisterBytes / static_cast<int>(sizeof(T));

/// Bytes of one argument of the next pack that are asked for ahead: what the second-level cache has
/// room for beside a pack.
inline constexpr int64_t kPrefetched = 4096 * kRegisterBytes;

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

/// As many numbers of type T as a pack has members.
template <class T, int W>
struct RowOf {
  typedef T Type __attribute__((vector_size(sizeof(T) * W)));
};

/// Between bytes and whole numbers of 32 bits by one move of bytes: __builtin_convertvector takes them
/// apart.
template <int W>
struct Bytes {
  using Whole = typename RowOf<int32_t, W>::Type;
  using Raw = typename RowOf<int8_t, 4 * W>::Type;
  static constexpr int kLow = std::endian::native == std::endian::little ? 0 : 3;

  template <int... kByte>
  TORCHQP_HD static Whole widen(const int8_t* from, std::integer_sequence<int, kByte...>) {
    Raw raw{};
    memcpy(&raw, from, W);
    // Each byte on top of 32 bits, then down with its sign.
    return (Whole)__builtin_shufflevector(Raw{}, raw,
                                          (kByte % 4 == 3 - kLow ? 4 * W + kByte / 4 : 0)...) >>
           24;
  }
  template <int... kByte>
  TORCHQP_HD static void narrow(Whole from, int8_t* to, std::integer_sequence<int, kByte...>) {
    const Raw raw = (Raw)from,
              packed = __builtin_shufflevector(raw, raw, (kByte % W * 4 + kLow)...);
    memcpy(to, &packed, W);
  }
};

/// W numbers from memory, as a register of another type.
template <class Register, int W, class T>
TORCHQP_HD Register load_row(const T* from) {
  if constexpr (sizeof(T) == 1) {
    const auto whole = Bytes<W>::widen(from, std::make_integer_sequence<int, 4 * W>());
    return __builtin_convertvector(whole, Register);
  } else {
    typename RowOf<T, W>::Type row;
    memcpy(&row, from, sizeof(row));
    return __builtin_convertvector(row, Register);
  }
}

/// The reverse.
template <int W, class T, class Register>
TORCHQP_HD void store_row(Register row, T* to) {
  if constexpr (sizeof(T) == 1) {
    const auto whole = __builtin_convertvector(row, typename Bytes<W>::Whole);
    Bytes<W>::narrow(whole, to, std::make_integer_sequence<int, 4 * W>());
  } else {
    const auto converted = __builtin_convertvector(row, typename RowOf<T, W>::Type);
    memcpy(to, &converted, sizeof(converted));
  }
}

}  // namespace detail

/// Entries of the W members of a pack: a square of W entries of W members is read along the
/// members' memory and transposed in registers.
template <class Scalar, class T>
class PackReader {
  static constexpr int kWidth = width_v<Scalar>;

 public:
  /// Reads from `count` entries of each member, `stride` apart.
  PackReader(const T* const (&start)[kWidth], int64_t stride, int64_t count)
      : stride_(stride), count_(count) {
    for (int w = 0; w < kWidth; ++w) start_[w] = start[w];
  }

  /// to[j * step] = entry at + j of each member, for j < count.
  TORCHQP_HD void read(int64_t at, int64_t count, Scalar* to, int64_t step = 1) const {
    if constexpr (kWidth > 1) {
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
    } else if (stride_ == 1) {
      const T* from = start_[0] + at;
      for (int64_t j = 0; j < count; ++j) to[j * step] = static_cast<Scalar>(from[j]);
      return;
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
    for (int w = 0; w < kWidth; ++w)
      block[w] = {detail::load_row<typename Scalar::Register, kWidth>(start_[w] + at)};
    detail::transpose(block);
  }

  const T* start_[kWidth];
  int64_t stride_, count_;
};

/// The reverse: the `size` entries value(i) of each of the first `members.count` members, to where each
/// begins in `to`.
template <class T, int W, class Value>
TORCHQP_HD void write_vector(T* to, int64_t size, const Members<W>& members, const Value& value) {
  using Scalar = decltype(value(0));
  if constexpr (W > 1) {
    if (size >= W) {
      T* start[W];
      for (int w = 0; w < W; ++w) start[w] = to + members.index[w] * size;
      for (int64_t next = 0; next < size; next += W) {
        // The last square may overlap the one before it.
        const int64_t i = std::min(next, size - W);
        Scalar block[W];
        TORCHQP_UNROLL
        for (int j = 0; j < W; ++j) block[j] = value(i + j);
        detail::transpose(block);
        const auto store = [&](int w) { detail::store_row<W>(block[w].v, start[w] + i); };
        if (members.count == W) {
          TORCHQP_UNROLL
          for (int w = 0; w < W; ++w) store(w);
        } else {
          for (int w = 0; w < members.count; ++w) store(w);
        }
      }
      return;
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    const Scalar entry = value(i);
    for (int w = 0; w < members.count; ++w)
      to[members.index[w] * size + i] = static_cast<T>(get(entry, w));
  }
}

/// A stream of entries, to where each member's begin.
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

/// Asks for what the pack after this one will read, unless the batch shares it: the members lie apart,
/// each too short for the machine to foresee the next. `most`: bytes that are worth it.
template <class T, int W>
void prefetch_next(const StridedArray<T>& array, int64_t entries, const Members<W>& members,
                   int64_t batch_size, int64_t most) {
  const auto bytes = static_cast<int64_t>(entries * sizeof(T));
  if (array.data == nullptr || array.batch.ndim == 0 || W * bytes > most) return;
  if (members.index[W - 1] + W >= batch_size) return;
  constexpr int kLine = 64;
  for (int w = 0; w < W; ++w) {
    const auto* next =
        reinterpret_cast<const char*>(array.data + array.batch.offset(members.index[w] + W));
    for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(next + at);
  }
}

/// Asks for Q, G and A of the pack after this one.
template <class Batch, int W>
void prefetch_matrices(const Batch& batch, const Members<W>& members) {
  const int64_t n = batch.dims.n;
  prefetch_next(batch.Q, batch.dims.diagonal ? n : n * n, members, batch.size, kPrefetched);
  prefetch_next(batch.G, batch.dims.m * n, members, batch.size, kPrefetched);
  prefetch_next(batch.A, batch.dims.p * n, members, batch.size, kPrefetched);
}

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
