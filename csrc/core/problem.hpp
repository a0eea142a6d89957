#pragma once
// Names, shapes, signs and memory layout of a batch of problems and of its solutions. No ownership
// anywhere.
//
//   z* = argmin 1/2 z'Qz + q'z   s.t.  Az = b,  h_lower <= Gz <= h,  lb <= z <= ub
//
//   L = 1/2 z'Qz + q'z + nu'(Az - b) + lam'(Gz - h) + lam_ub'(z - ub) + lam_lb'(lb - z)
//
// lam_lb, lam_ub >= 0. lam is the net multiplier of a row, upper side minus lower side: >= 0 where
// Gz = h, <= 0 where Gz = h_lower. Q enters through (Q + Q')/2. An infinite entry of h, h_lower, lb
// or ub (|value| >= 1e20) is no constraint.

#include <cstdint>

#include "core/config.hpp"

namespace torchqp {

/// Sizes of one problem and which optional arguments are there; equal for all members of a batch.
struct Dims {
  int n = 0;             ///< variables
  int m = 0;             ///< rows of G
  int p = 0;             ///< rows of A
  bool h_lower = false;  ///< rows have lower sides
  bool h_upper = false;  ///< rows have upper sides
  bool lb = false, ub = false;
  bool diagonal = false;  ///< Q is given as its diagonal [n]

  TORCHQP_HD bool bounds() const { return lb || ub; }
  friend bool operator==(const Dims&, const Dims&) = default;
};

/// Magnitudes from here on mean "no constraint" in h, h_lower, lb and ub.
inline constexpr double kInfinity = 1e20;

/// Where member i of a broadcast batch starts: mixed-radix strides, 0 where a dimension is shared.
struct BatchLayout {
  static constexpr int kMaxDims = 16;
  int ndim = 0;
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};  ///< in elements

  TORCHQP_HD int64_t offset(int64_t member) const {
    int64_t result = 0;
    for (int d = ndim - 1; d >= 0; --d) {
      if (member < sizes[d]) return result + member * strides[d];  // saves the divisions
      result += member % sizes[d] * strides[d];
      member /= sizes[d];
    }
    return result;
  }
  friend bool operator==(const BatchLayout&, const BatchLayout&) = default;
};

/// One argument of every member: element (i, j) of member b is data[batch.offset(b) + i * row + j *
/// col]. Any strides.
template <class T>
struct StridedArray {
  const T* data = nullptr;  ///< nullptr: the argument is absent
  int64_t row = 0, col = 0;
  BatchLayout batch;
  friend bool operator==(const StridedArray&, const StridedArray&) = default;
};

/// The data of a batch. Vectors use `row` as their stride. A diagonal Q is a vector.
template <class T>
struct ProblemBatch {
  Dims dims;
  int64_t size = 0;
  StridedArray<T> Q, q, G, h_lower, h, A, b, lb, ub;
  /// Where to start, all or none: multipliers of absent arguments stay absent.
  StridedArray<T> z0, nu0, lam0, lam_lb0, lam_ub0;
  friend bool operator==(const ProblemBatch&, const ProblemBatch&) = default;
};

/// Where the solutions go: contiguous, batch first. Every entry is written, whatever the outcome.
template <class T>
struct SolutionBatch {
  T* z = nullptr;       ///< [batch, n]
  T* nu = nullptr;      ///< [batch, p]
  T* lam = nullptr;     ///< [batch, m]
  T* lam_lb = nullptr;  ///< [batch, n], or nullptr without lb
  T* lam_ub = nullptr;  ///< [batch, n], or nullptr without ub
  T* slack = nullptr;   ///< [batch, m] h - G z, +inf without an upper side, NaN where z is; or
                        ///< nullptr when not wanted
  int32_t* status = nullptr;      ///< [batch] Status
  int32_t* iterations = nullptr;  ///< [batch] rounds of pivoting and interior-point iterations
                                  ///< that led to the outcome; 0 where it was found directly
  T* residuals = nullptr;    ///< [batch, 4] stationarity, primal, dual sign, gap; each r / (1 + its
                             ///< reference size)
  int8_t* active = nullptr;  ///< [batch, m (+ n with bounds)] +1 upper side holds, -1 lower side
                             ///< holds, 0 inactive
  T* factor = nullptr;       ///< [batch, factor_size(dims)], or nullptr when not wanted
  friend bool operator==(const SolutionBatch&, const SolutionBatch&) = default;
};

/// One linearised KKT system per member (see qp/adjoint.hpp):
///
///   [ Q    A'   G_I'  E_J' ] [ d_z     ]     [ g_z       ]
///   [ A    0    0     0    ] [ d_nu    ] = - [ g_nu      ]      I, J: active rows and bounds
///   [ G_I  0    0     0    ] [ d_lam_I ]     [ g_lam_I   ]
///   [ E_J  0    0     0    ] [ d_bnd_J ]     [ g_bnd_J   ]
///
/// d is zero on inactive rows and bounds, and everywhere for a member that was not solved. Where the
/// matrix is singular, the part of g that no d can meet is left out.
template <class T>
struct KktBatch {
  Dims dims;  ///< lb = ub = true when `active` covers bounds, both false otherwise
  int64_t size = 0;
  StridedArray<T> Q, G, A;
  StridedArray<int8_t> active;   ///< [.., m (+ n)]
  StridedArray<int32_t> status;  ///< [..]
  StridedArray<T> factor;        ///< [.., factor_size] or absent: it is then formed here
  StridedArray<T> g_z, g_nu, g_lam, g_bound;  ///< absent: zero
  T* d_z = nullptr;                           ///< [batch, n] contiguous
  T* d_nu = nullptr;                          ///< [batch, p]
  T* d_lam = nullptr;                         ///< [batch, m]
  T* d_bound = nullptr;                       ///< [batch, n], or nullptr without bounds
  int32_t* info = nullptr;                    ///< [batch] 0, or 1 where part of g was left out,
                                              ///< all of it where d overflows
  friend bool operator==(const KktBatch&, const KktBatch&) = default;
};

/// Whether a diagonal Q is worked on as such: with few rows everything reduces to systems of their
/// size.
TORCHQP_HD bool keeps_diagonal(const Dims& dims) {
  return dims.diagonal && 2 * (int64_t{dims.m} + dims.p) <= dims.n;
}

/// Whether the dual form is tried first: rows only, and not many more of them than variables (then
/// condensing is cheaper).
TORCHQP_HD bool prefers_dual(const Dims& dims) {
  return !dims.bounds() && !keeps_diagonal(dims) && dims.m <= 2 * int64_t{dims.n};
}

/// Whether there are many more rows of G than the equalities leave freedom: the dual form's system
/// is singular then, and the solution likely a vertex.
TORCHQP_HD bool is_crowded(int n, int m, int p) {
  return 2 * int64_t{m} > 3 * (int64_t{n} - p);
}

/// Whether float data are worked on in double precision from the start. In the dual form of a crowded
/// problem single precision takes three to five times the iterations (n = 20 to 100), for the
/// system's rounding is as large as what makes it regular.
TORCHQP_HD bool skips_single(const Dims& dims) {
  return prefers_dual(dims) && is_crowded(dims.n, dims.m, dims.p);
}

/// Scalars that one member's factor takes: a tag, then the lower triangles, row by row, of Q's (or
/// the condensed) factor [n, n] and of the constraints' system [p + rows that hold, .]; what is
/// left is zero. A diagonal Q with few rows is cheaper to factor again than to save.
TORCHQP_HD int64_t factor_size(const Dims& dims) {
  if (keeps_diagonal(dims)) return 1;
  const int64_t n = dims.n;
  const int64_t rows = dims.p + (prefers_dual(dims) ? dims.m : 0);
  return 1 + n * (n + 1) / 2 + rows * (rows + 1) / 2;
}

}  // namespace torchqp
