#pragma once
// The Scalar vocabulary: float, double, or Pack<T, W> = W different problems in one SIMD register.
//
// Routines are written once over Scalar. Arithmetic is per problem, lanes never meet. A choice that
// depends on a value is select(mask, a, b); a loop ends when all(mask). The order of operations is
// fixed and fused multiply-adds are explicit, so that one lane of a Pack and a scalar run give the
// same bits (compile with -ffp-contract=off).

#include <cmath>
#include <cstdint>
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

/// One truth value per problem of a Pack: all bits set or none.
template <class T, int W>
struct Mask {
  using Int = std::conditional_t<sizeof(T) == 8, long long, int>;
  typedef Int Register __attribute__((vector_size(sizeof(T) * W)));
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
  return m.v[lane] != 0;
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

#define TORCHQP_PACK_COMPARISON(op)                               \
  template <class T, int W>                                       \
  TORCHQP_HD Mask<T, W> operator op(Pack<T, W> a, Pack<T, W> b) { \
    return {(typename Mask<T, W>::Register)(a.v op b.v)};         \
  }
TORCHQP_PACK_COMPARISON(<)
TORCHQP_PACK_COMPARISON(<=)
TORCHQP_PACK_COMPARISON(>)
TORCHQP_PACK_COMPARISON(>=)
TORCHQP_PACK_COMPARISON(==)
TORCHQP_PACK_COMPARISON(!=)
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
  return {a.v & b.v};
}
template <class T, int W>
TORCHQP_HD Mask<T, W> either(Mask<T, W> a, Mask<T, W> b) {
  return {a.v | b.v};
}
template <class T, int W>
TORCHQP_HD Mask<T, W> negate(Mask<T, W> a) {
  return {~a.v};
}
template <class T, int W>
TORCHQP_HD bool all(Mask<T, W> a) {
  bool result = true;
  for (int w = 0; w < W; ++w) result &= a.v[w] != 0;
  return result;
}
template <class T, int W>
TORCHQP_HD bool any(Mask<T, W> a) {
  bool result = false;
  for (int w = 0; w < W; ++w) result |= a.v[w] != 0;
  return result;
}
template <class S>
TORCHQP_HD MaskOf<S> broadcast_mask(bool value) {
  if constexpr (width_v<S> == 1) {
    return value;
  } else {
    return {typename MaskOf<S>::Register{} - (value ? 1 : 0)};
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
  return {mask.v ? a.v : b.v};
}

template <class S>
TORCHQP_HD S reciprocal_sqrt(S a) {
  const S root = reciprocal(square_root(a));
  return select(a > broadcast<S>(0), root,
                broadcast<S>(std::numeric_limits<Element<S>>::quiet_NaN()));
}

template <class S>
TORCHQP_HD S minimum(S a, S b) {
  return select(b < a, b, a);
}
template <class S>
TORCHQP_HD S maximum(S a, S b) {
  return select(b > a, b, a);
}
template <class S>
TORCHQP_HD S absolute(S a) {
  return maximum(a, -a);
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

/// The power of two next below |a| * sqrt(2), so that scaling by it is exact; 1 where a is 0 or not
/// finite.
template <class S>
TORCHQP_HD S power_of_two(S a) {
  S result = broadcast<S>(1);
  for (int w = 0; w < width_v<S>; ++w) {
    const Element<S> value = get(a, w);
    if (!(value > 0) || !(value <= std::numeric_limits<Element<S>>::max())) continue;
    int exponent;
    frexp(value * Element<S>(1.4142135623730951), &exponent);
    set(result, w, static_cast<Element<S>>(ldexp(1.0, exponent - 1)));
  }
  return result;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp
