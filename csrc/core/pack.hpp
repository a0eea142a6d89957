#pragma once
// The Scalar vocabulary: float, double, or Pack<T, W> = W different problems in one SIMD register.
//
// Routines are written once over Scalar. Arithmetic is per problem, lanes never meet. A choice that
// depends on a value is select(mask, a, b); a loop ends when all(mask). The order of operations is
// fixed and fused multiply-adds are explicit, so that one lane of a Pack and a scalar run give the
// same bits (compile with -ffp-contract=off).

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/config.hpp"

#if !defined(__CUDACC__) && (defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)))
#include <immintrin.h>
#endif

namespace torchqp {
TORCHQP_BEGIN_ISA_NAMESPACE

template <class T, int W>
struct Pack {
  typedef T Register __attribute__((vector_size(sizeof(T) * W)));
  Register v;
};

namespace detail {

/// The signed integer as wide as T.
template <class T>
using IntOf = std::conditional_t<sizeof(T) == 8, long long, int>;

/// Truth values are lanes with all bits set or none, except in a full AVX-512 register, which has
/// mask registers: one bit a lane.
#if defined(__AVX512F__) && !defined(__CUDACC__)
template <class T, int W>
inline constexpr bool has_mask_register_v = sizeof(T) * W == 64;
#else
template <class T, int W>
inline constexpr bool has_mask_register_v = false;
#endif

template <class T, int W, bool kBits>
struct MaskRegister {
  typedef IntOf<T> type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T, int W>
struct MaskRegister<T, W, true> {
  using type = std::conditional_t<W == 8, unsigned char, unsigned short>;
};

}  // namespace detail

/// One truth value per problem of a Pack.
template <class T, int W>
struct Mask {
  static constexpr bool kBits = detail::has_mask_register_v<T, W>;
  using Register = typename detail::MaskRegister<T, W, kBits>::type;
  Register v;
};

template <class S>
struct ScalarTraits {
  using Element = S;
  using Mask = bool;
  static constexpr int kWidth = 1;
};
template <class T, int W>
struct ScalarTraits<Pack<T, W>> {
  using Element = T;
  using Mask = torchqp::Mask<T, W>;
  static constexpr int kWidth = W;
};
template <class S>
using Element = typename ScalarTraits<S>::Element;
template <class S>
using MaskOf = typename ScalarTraits<S>::Mask;
template <class S>
inline constexpr int width_v = ScalarTraits<S>::kWidth;

/// Relative rounding error of the element type.
template <class S>
inline constexpr Element<S> epsilon_v = std::numeric_limits<Element<S>>::epsilon();

// ---- one value for every problem, and one problem's value
// -------------------------------------------------------------

template <class S>
TORCHQP_HD S broadcast(double value) {
  if constexpr (width_v<S> == 1) {
    return static_cast<S>(value);
  } else {
    return {static_cast<Element<S>>(value) -
            typename S::Register{}};  // x - 0 keeps the sign of zero
  }
}
template <class S>
TORCHQP_HD Element<S> get(const S& a, int lane) {
  if constexpr (width_v<S> == 1) {
    return a;
  } else {
    return a.v[lane];
  }
}
template <class S>
TORCHQP_HD void set(S& a, int lane, Element<S> value) {
  if constexpr (width_v<S> == 1) {
    a = value;
  } else {
    a.v[lane] = value;
  }
}
TORCHQP_HD bool get_mask(bool m, int) {
  return m;
}
template <class T, int W>
TORCHQP_HD bool get_mask(Mask<T, W> m, int lane) {
  if constexpr (Mask<T, W>::kBits) {
    return (m.v >> lane & 1) != 0;
  } else {
    return m.v[lane] != 0;
  }
}

// ---- arithmetic
// -------------------------------------------------------------------------------------------------------

#define TORCHQP_PACK_OPERATOR(op)                                 \
  template <class T, int W>                                       \
  TORCHQP_HD Pack<T, W> operator op(Pack<T, W> a, Pack<T, W> b) { \
    return {a.v op b.v};                                          \
  }
TORCHQP_PACK_OPERATOR(+)
TORCHQP_PACK_OPERATOR(-)
TORCHQP_PACK_OPERATOR(*)
TORCHQP_PACK_OPERATOR(/)
#undef TORCHQP_PACK_OPERATOR
template <class T, int W>
TORCHQP_HD Pack<T, W> operator-(Pack<T, W> a) {
  return {-a.v};
}

/// a * b + c with one rounding.
TORCHQP_HD double fused(double a, double b, double c) {
  return fma(a, b, c);
}
TORCHQP_HD float fused(float a, float b, float c) {
  return fmaf(a, b, c);
}
template <class T, int W>
TORCHQP_HD Pack<T, W> fused(Pack<T, W> a, Pack<T, W> b, Pack<T, W> c) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 64) {
    if constexpr (sizeof(T) == 8) {
      return {
          (typename Pack<T, W>::Register)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
    } else {
      return {
          (typename Pack<T, W>::Register)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
    }
  }
#endif
#if defined(__FMA__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 32) {
    if constexpr (sizeof(T) == 8) {
      return {
          (typename Pack<T, W>::Register)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
    } else {
      return {
          (typename Pack<T, W>::Register)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
    }
  }
#endif
  Pack<T, W> r;
  for (int w = 0; w < W; ++w) r.v[w] = fused(a.v[w], b.v[w], c.v[w]);
  return r;
}
/// c - a * b with one rounding.
TORCHQP_HD double fnma(double a, double b, double c) {
  return fma(-a, b, c);
}
TORCHQP_HD float fnma(float a, float b, float c) {
  return fmaf(-a, b, c);
}
template <class T, int W>
TORCHQP_HD Pack<T, W> fnma(Pack<T, W> a, Pack<T, W> b, Pack<T, W> c) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 64) {
    if constexpr (sizeof(T) == 8) {
      return {(typename Pack<T, W>::Register)_mm512_fnmadd_pd((__m512d)a.v, (__m512d)b.v,
                                                              (__m512d)c.v)};
    } else {
      return {
          (typename Pack<T, W>::Register)_mm512_fnmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
    }
  }
#endif
#if defined(__FMA__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 32) {
    if constexpr (sizeof(T) == 8) {
      return {(typename Pack<T, W>::Register)_mm256_fnmadd_pd((__m256d)a.v, (__m256d)b.v,
                                                              (__m256d)c.v)};
    } else {
      return {
          (typename Pack<T, W>::Register)_mm256_fnmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
    }
  }
#endif
  return fused(-a, b, c);
}

TORCHQP_HD double square_root(double a) {
  return sqrt(a);
}
TORCHQP_HD float square_root(float a) {
  return sqrtf(a);
}
template <class T, int W>
TORCHQP_HD Pack<T, W> square_root(Pack<T, W> a) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 64) {
    if constexpr (sizeof(T) == 8) {
      return {(typename Pack<T, W>::Register)_mm512_maskz_sqrt_pd(0xff, (__m512d)a.v)};
    } else {
      return {(typename Pack<T, W>::Register)_mm512_maskz_sqrt_ps(0xffff, (__m512)a.v)};
    }
  }
#endif
  Pack<T, W> r;
  for (int w = 0; w < W; ++w) r.v[w] = square_root(a.v[w]);
  return r;
}
template <class S>
TORCHQP_HD S reciprocal(S a) {
  return broadcast<S>(1) / a;
}
/// 1 / sqrt(a), NaN for a <= 0: a failed pivot must not look like a large number.
template <class S>
TORCHQP_HD S reciprocal_sqrt(S a);

// ---- comparison and choice
// --------------------------------------------------------------------------------------------

#if defined(__AVX512F__) && !defined(__CUDACC__)
#define TORCHQP_PACK_COMPARISON(op, predicate)                            \
  template <class T, int W>                                               \
  TORCHQP_HD Mask<T, W> operator op(Pack<T, W> a, Pack<T, W> b) {         \
    if constexpr (!Mask<T, W>::kBits) {                                   \
      return {(typename Mask<T, W>::Register)(a.v op b.v)};               \
    } else if constexpr (sizeof(T) == 8) {                                \
      return {_mm512_cmp_pd_mask((__m512d)a.v, (__m512d)b.v, predicate)}; \
    } else {                                                              \
      return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, predicate)};   \
    }                                                                     \
  }
#else
#define TORCHQP_PACK_COMPARISON(op, predicate)                    \
  template <class T, int W>                                       \
  TORCHQP_HD Mask<T, W> operator op(Pack<T, W> a, Pack<T, W> b) { \
    return {(typename Mask<T, W>::Register)(a.v op b.v)};         \
  }
#endif
TORCHQP_PACK_COMPARISON(<, _CMP_LT_OQ)
TORCHQP_PACK_COMPARISON(<=, _CMP_LE_OQ)
TORCHQP_PACK_COMPARISON(>, _CMP_GT_OQ)
TORCHQP_PACK_COMPARISON(>=, _CMP_GE_OQ)
TORCHQP_PACK_COMPARISON(==, _CMP_EQ_OQ)
TORCHQP_PACK_COMPARISON(!=, _CMP_NEQ_UQ)
#undef TORCHQP_PACK_COMPARISON

TORCHQP_HD bool both(bool a, bool b) {
  return a && b;
}
TORCHQP_HD bool either(bool a, bool b) {
  return a || b;
}
TORCHQP_HD bool negate(bool a) {
  return !a;
}
TORCHQP_HD bool all(bool a) {
  return a;
}
TORCHQP_HD bool any(bool a) {
  return a;
}
template <class T, int W>
TORCHQP_HD Mask<T, W> both(Mask<T, W> a, Mask<T, W> b) {
  return {static_cast<typename Mask<T, W>::Register>(a.v & b.v)};
}
template <class T, int W>
TORCHQP_HD Mask<T, W> either(Mask<T, W> a, Mask<T, W> b) {
  return {static_cast<typename Mask<T, W>::Register>(a.v | b.v)};
}
template <class T, int W>
TORCHQP_HD Mask<T, W> negate(Mask<T, W> a) {
  return {static_cast<typename Mask<T, W>::Register>(~a.v)};
}
template <class T, int W>
TORCHQP_HD bool all(Mask<T, W> a) {
  if constexpr (Mask<T, W>::kBits) {
    return a.v == static_cast<typename Mask<T, W>::Register>(~0u);
  } else {
    bool result = true;
    for (int w = 0; w < W; ++w) result &= a.v[w] != 0;
    return result;
  }
}
template <class T, int W>
TORCHQP_HD bool any(Mask<T, W> a) {
  if constexpr (Mask<T, W>::kBits) {
    return a.v != 0;
  } else {
    bool result = false;
    for (int w = 0; w < W; ++w) result |= a.v[w] != 0;
    return result;
  }
}
/// f(lane) for every lane where the mask holds.
template <class F>
TORCHQP_HD void for_each_lane(bool mask, F f) {
  if (mask) f(0);
}
template <class T, int W, class F>
TORCHQP_HD void for_each_lane(Mask<T, W> mask, F f) {
  if constexpr (Mask<T, W>::kBits) {
    for (unsigned bits = mask.v; bits != 0; bits &= bits - 1) f(__builtin_ctz(bits));
  } else {
    for (int w = 0; w < W; ++w) {
      if (mask.v[w] != 0) f(w);
    }
  }
}
template <class S>
TORCHQP_HD MaskOf<S> broadcast_mask(bool value) {
  if constexpr (width_v<S> == 1) {
    return value;
  } else {
    return {static_cast<typename MaskOf<S>::Register>(typename MaskOf<S>::Register{} -
                                                      (value ? 1 : 0))};
  }
}

/// mask ? a : b per problem. The side not chosen may hold anything, NaN included.
TORCHQP_HD double select(bool mask, double a, double b) {
  return mask ? a : b;
}
TORCHQP_HD float select(bool mask, float a, float b) {
  return mask ? a : b;
}
template <class T, int W>
TORCHQP_HD Pack<T, W> select(Mask<T, W> mask, Pack<T, W> a, Pack<T, W> b) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (Mask<T, W>::kBits && sizeof(T) == 8) {
    return {
        (typename Pack<T, W>::Register)_mm512_mask_blend_pd(mask.v, (__m512d)b.v, (__m512d)a.v)};
  } else if constexpr (Mask<T, W>::kBits) {
    return {(typename Pack<T, W>::Register)_mm512_mask_blend_ps(mask.v, (__m512)b.v, (__m512)a.v)};
  } else
#endif
  {
    return {mask.v ? a.v : b.v};
  }
}

template <class S>
TORCHQP_HD S reciprocal_sqrt(S a) {
  const S root = reciprocal(square_root(a));
  return select(a > broadcast<S>(0), root,
                broadcast<S>(std::numeric_limits<Element<S>>::quiet_NaN()));
}

/// b < a ? b : a. A NaN in either gives a.
template <class S>
TORCHQP_HD S minimum(S a, S b) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(S) == 64 && sizeof(Element<S>) == 8) {
    return {(typename S::Register)_mm512_maskz_min_pd(0xff, (__m512d)b.v, (__m512d)a.v)};
  } else if constexpr (sizeof(S) == 64) {
    return {(typename S::Register)_mm512_maskz_min_ps(0xffff, (__m512)b.v, (__m512)a.v)};
  } else
#endif
  {
    return select(b < a, b, a);
  }
}
/// b > a ? b : a. A NaN in either gives a.
template <class S>
TORCHQP_HD S maximum(S a, S b) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(S) == 64 && sizeof(Element<S>) == 8) {
    return {(typename S::Register)_mm512_maskz_max_pd(0xff, (__m512d)b.v, (__m512d)a.v)};
  } else if constexpr (sizeof(S) == 64) {
    return {(typename S::Register)_mm512_maskz_max_ps(0xffff, (__m512)b.v, (__m512)a.v)};
  } else
#endif
  {
    return select(b > a, b, a);
  }
}
TORCHQP_HD double absolute(double a) {
  return fabs(a);
}
TORCHQP_HD float absolute(float a) {
  return fabsf(a);
}
/// Clears the sign, of zeros and NaNs too.
template <class T, int W>
TORCHQP_HD Pack<T, W> absolute(Pack<T, W> a) {
  typedef detail::IntOf<T> Bits __attribute__((vector_size(sizeof(T) * W)));
  const Bits magnitude = Bits{} + std::numeric_limits<detail::IntOf<T>>::max();
  return {(typename Pack<T, W>::Register)((Bits)a.v & magnitude)};
}
/// max(r, |x|) that keeps a NaN once it has met one: a norm must not lose it.
template <class S>
TORCHQP_HD S max_norm(S r, S x) {
  const S size = absolute(x);
  return select(either(size > r, x != x), size, r);
}
template <class S>
TORCHQP_HD MaskOf<S> is_finite(S a) {
  return absolute(a) <= broadcast<S>(std::numeric_limits<Element<S>>::max());
}

namespace detail {

/// The bits of a number that are its exponent.
template <class T>
inline constexpr IntOf<T> exponent_bits_v = sizeof(T) == 8
                                                ? static_cast<IntOf<T>>(0x7ff0000000000000)
                                                : 0x7f800000;

/// The power of two at or below a positive number.
template <class T>
TORCHQP_HD T exponent_only(T size) {
  IntOf<T> bits;
  memcpy(&bits, &size, sizeof(T));
  bits &= exponent_bits_v<T>;
  memcpy(&size, &bits, sizeof(T));
  return size;
}
template <class T, int W>
TORCHQP_HD Pack<T, W> exponent_only(Pack<T, W> size) {
  typedef IntOf<T> Bits __attribute__((vector_size(sizeof(T) * W)));
  return {(typename Pack<T, W>::Register)((Bits)size.v & (Bits{} + exponent_bits_v<T>))};
}

}  // namespace detail

/// The power of two next below |a| * sqrt(2), so that scaling by it is exact; 1 where a is not a
/// positive normal number.
template <class S>
TORCHQP_HD S power_of_two(S a) {
  using T = Element<S>;
  const S most = broadcast<S>(std::numeric_limits<T>::max());
  const S size = minimum(most, a * broadcast<S>(1.4142135623730951));
  const auto usable = both(size >= broadcast<S>(std::numeric_limits<T>::min()), a <= most);
  return select(usable, detail::exponent_only(size), broadcast<S>(1));
}

/// from[row * stride + col] at a row and column of every problem's own: whole numbers from 0 on.
TORCHQP_HD double gather(const double* from, double row, int stride, double col) {
  return from[static_cast<int64_t>(row) * stride + static_cast<int64_t>(col)];
}
TORCHQP_HD float gather(const float* from, float row, int stride, float col) {
  return from[static_cast<int64_t>(row) * stride + static_cast<int64_t>(col)];
}
template <class T, int W>
TORCHQP_HD Pack<T, W> gather(const Pack<T, W>* from, Pack<T, W> row, int stride, Pack<T, W> col) {
#if defined(__AVX512F__) && defined(__AVX512DQ__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 64 && sizeof(T) == 8) {
    const auto wide = [](Pack<T, W> x) { return _mm512_maskz_cvttpd_epi64(0xff, (__m512d)x.v); };
    const Pack<T, W> entry = fused(row, broadcast<Pack<T, W>>(stride), col);
    const __m512i at = _mm512_add_epi64(_mm512_maskz_slli_epi64(0xff, wide(entry), 3),
                                        _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    return {(typename Pack<T, W>::Register)_mm512_mask_i64gather_pd(_mm512_setzero_pd(), 0xff, at,
                                                                    from, sizeof(T))};
  }
#endif
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (sizeof(T) * W == 64 && sizeof(T) == 4) {
    if (stride < 8192) {  // the position of the farthest entry fits 32 bits
      const auto whole = [](Pack<T, W> x) {
        return _mm512_maskz_cvttps_epi32(0xffff, (__m512)x.v);
      };
      const __m512i entry =
          _mm512_add_epi32(_mm512_mullo_epi32(whole(row), _mm512_set1_epi32(stride)), whole(col));
      const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
      const __m512i at = _mm512_add_epi32(_mm512_maskz_slli_epi32(0xffff, entry, 4), lanes);
      return {(typename Pack<T, W>::Register)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff,
                                                                      at, from, sizeof(T))};
    }
  }
#endif
  Pack<T, W> result;
  for (int w = 0; w < W; ++w) {
    const int64_t at = static_cast<int64_t>(row.v[w]) * stride + static_cast<int64_t>(col.v[w]);
    result.v[w] = from[at].v[w];
  }
  return result;
}
/// from[position] at a position of every problem's own.
template <class S>
TORCHQP_HD S gather(const S* from, S position) {
  return gather(from, broadcast<S>(0), 1, position);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp
