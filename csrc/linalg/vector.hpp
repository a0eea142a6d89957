#pragma once
// Consecutive entries of one problem in a register: what the routines of panel.hpp and strip.hpp
// are made of.
//
// A serial team that solves one problem has no other problem to fill a register with, so it takes
// entries of one row (or of one column, after a transpose) together. Each entry is still its own
// sum, in the same order: the bits are those of the tiles.

#include <type_traits>
#include <utility>

#include "core/pack.hpp"
#include "core/team.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

#if !defined(__CUDACC__) && defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif !defined(__CUDACC__) && defined(__AVX2__) && defined(__FMA__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 0;  // a multiply-add is a call for each entry: nothing to gain
#endif

/// Whether one problem is computed along rows instead of in tiles.
template <class Team, class Scalar>
inline constexpr bool rowwise_v =
    kVectorBytes > 0 &&
    std::conjunction_v<std::is_same<Team, SerialTeam>, std::is_floating_point<Scalar>>;

/// Up to this size (12 is 10 padded) the tiles are as fast: nothing to set up, no lane idle.
inline constexpr int kSmall = 12;

/// Entries in one register.
template <class T>
inline constexpr int lanes_v = kVectorBytes / static_cast<int>(sizeof(T));
template <class T>
using Vector = Pack<T, lanes_v<T>>;

template <class T>
TORCHQP_HD Vector<T> splat(T value) {
  return {value - typename Vector<T>::Register{}};  // x - 0 keeps the sign of zero
}

template <class T>
TORCHQP_HD Vector<T> load(const T* from) {
  typedef typename Vector<T>::Register Unaligned __attribute__((aligned(sizeof(T)), may_alias));
  return {*reinterpret_cast<const Unaligned*>(from)};
}
template <class T>
TORCHQP_HD void store(T* to, Vector<T> value) {
  typedef typename Vector<T>::Register Unaligned __attribute__((aligned(sizeof(T)), may_alias));
  *reinterpret_cast<Unaligned*>(to) = value.v;
}

/// The entries of two registers of which one is +0 wherever the other is not (or both are equal).
template <class T>
TORCHQP_HD Vector<T> merge(Vector<T> a, Vector<T> b) {
  using Bits = std::conditional_t<sizeof(T) == 8, long long, int>;
  typedef Bits Register __attribute__((vector_size(sizeof(Vector<T>))));
  return {(typename Vector<T>::Register)((Register)a.v | (Register)b.v)};
}

#if defined(__AVX512F__) && !defined(__CUDACC__)
/// The first `count` entries (0 to lanes_v), zero in the others, whose memory is not touched.
TORCHQP_HD Vector<double> load_first(const double* from, int count) {
  return {(Vector<double>::Register)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1),
                                                          from)};
}
TORCHQP_HD Vector<float> load_first(const float* from, int count) {
  return {(Vector<float>::Register)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1),
                                                         from)};
}
/// Writes the first `count` entries only.
TORCHQP_HD void store_first(double* to, Vector<double> value, int count) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)value.v);
}
TORCHQP_HD void store_first(float* to, Vector<float> value, int count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)value.v);
}
#elif defined(__AVX2__) && defined(__FMA__) && !defined(__CUDACC__)
namespace detail {
TORCHQP_HD __m256i first_lanes(const double*, int count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
TORCHQP_HD __m256i first_lanes(const float*, int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
}  // namespace detail
TORCHQP_HD Vector<double> load_first(const double* from, int count) {
  return {(Vector<double>::Register)_mm256_maskload_pd(from, detail::first_lanes(from, count))};
}
TORCHQP_HD Vector<float> load_first(const float* from, int count) {
  return {(Vector<float>::Register)_mm256_maskload_ps(from, detail::first_lanes(from, count))};
}
TORCHQP_HD void store_first(double* to, Vector<double> value, int count) {
  _mm256_maskstore_pd(to, detail::first_lanes(to, count), (__m256d)value.v);
}
TORCHQP_HD void store_first(float* to, Vector<float> value, int count) {
  _mm256_maskstore_ps(to, detail::first_lanes(to, count), (__m256)value.v);
}
#endif

/// As load_first, where `count` may exceed the register or be negative.
template <class T>
TORCHQP_HD Vector<T> load_some(const T* from, int count) {
  if (count >= lanes_v<T>) return load(from);
  return load_first(from, count < 0 ? 0 : count);
}
template <class T>
TORCHQP_HD void store_some(T* to, Vector<T> value, int count) {
  if (count >= lanes_v<T>) {
    store(to, value);
  } else if (count > 0) {
    store_first(to, value, count);
  }
}

namespace detail {

/// Swaps the off-diagonal kStep x kStep blocks of rows a and b.
template <int kStep, class T, int... kLane>
TORCHQP_HD void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, kLane...>) {
#if !defined(__CUDACC__)  // whose front end loses the expansion; no team of a GPU gets here
  constexpr int kLanes = lanes_v<T>;
  const typename Vector<T>::Register upper = a.v, lower = b.v;
  a.v = __builtin_shufflevector(upper, lower,
                                ((kLane & kStep) == 0 ? kLane : kLanes + kLane - kStep)...);
  b.v = __builtin_shufflevector(upper, lower,
                                ((kLane & kStep) == 0 ? kLane + kStep : kLanes + kLane)...);
#endif
}

template <int kStep, class T, int kRows>
TORCHQP_HD void transpose_from(Vector<T> (&rows)[kRows]) {
  if constexpr (kStep < kRows) {
    TORCHQP_UNROLL
    for (int r = 0; r < kRows; ++r)
      if ((r & kStep) == 0)
        exchange<kStep, T>(rows[r], rows[r + kStep], std::make_integer_sequence<int, lanes_v<T>>{});
    transpose_from<2 * kStep, T>(rows);
  }
}

}  // namespace detail

/// Transposes a square block held in registers.
template <class T, int kRows>
TORCHQP_HD void transpose(Vector<T> (&rows)[kRows]) {
  static_assert(kRows == lanes_v<T>);
  detail::transpose_from<1, T>(rows);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
