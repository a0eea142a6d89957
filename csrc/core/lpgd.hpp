#pragma once
// The LPGD adjoint of a batch around its solves: what goes in, and where the moved problems and the
// differences of their solutions go (Paulus et al., LPGD, 2024). No ownership.

#include <cstdint>

#include "core/problem.hpp"

namespace torchqp {

/// One solution, its cotangents and the ends of the step, per member.
///
/// `lpgd_move` writes for each end, at t = +step or -step, the problem of
///
///   q + t g_z - rho z    h - t g_lam    h_lower - t g_lam    b - t g_nu    lb + t g_lb    ub - t g_ub
///
/// and `lpgd_difference` reads its solutions. With D x = (x at the larger t - x at the smaller one) /
/// (their distance) and the solution z itself at t = 0, also in place of an end that failed,
///
///   d_* = D *    mean_* = the mean of both    h = -D max(lam, 0)    h_lower = D max(-lam, 0)
///   lb = D lam_lb    ub = -D lam_ub
///
/// An infinite side stays where it is. A fixed variable's bounds move as one, by the side that holds.
template <class T>
struct LpgdBatch {
  Dims dims;
  int64_t size = 0;
  int ends = 1;           ///< 1 or 2
  bool increases = true;  ///< whether t > 0 at end 0; end 1 has the other sign
  /// |t|, or with `relative` tau (1 + max |q|) / (largest entry of all cotangents). Written is NaN
  /// where all cotangents are zero or the member failed: what moves by it is no valid problem, which
  /// costs nothing to find out.
  T tau = 0;
  bool relative = false;
  T rho = 0;
  StridedArray<T> q, h_lower, h, b, lb, ub;
  StridedArray<T> g_z, g_nu, g_lam, g_lb, g_ub;  ///< absent: zero

  // Contiguous from here on, batch first; of two ends, the first end's members before the other's.
  const T *z = nullptr, *nu = nullptr, *lam = nullptr, *lam_lb = nullptr, *lam_ub = nullptr;
  const int32_t* status = nullptr;
  T* step = nullptr;  ///< [batch]
  /// [ends, batch, .], or nullptr: not wanted, as it does not move.
  T *moved_q = nullptr, *moved_h_lower = nullptr, *moved_h = nullptr, *moved_b = nullptr,
    *moved_lb = nullptr, *moved_ub = nullptr;

  const T *end_z = nullptr, *end_nu = nullptr, *end_lam = nullptr, *end_lam_lb = nullptr,
          *end_lam_ub = nullptr;          ///< [ends, batch, .]
  const int32_t* end_status = nullptr;    ///< [ends, batch]
  T *d_z = nullptr, *mean_z = nullptr;    ///< [batch, n]
  T *d_nu = nullptr, *mean_nu = nullptr;  ///< [batch, p]
  T *d_lam = nullptr, *mean_lam = nullptr, *h_lower_grad = nullptr,
    *h_grad = nullptr;                       ///< [batch, m]
  T *lb_grad = nullptr, *ub_grad = nullptr;  ///< [batch, n], or nullptr without the bound
  int32_t* info = nullptr;                   ///< [batch] 1 where a problem was not solved
};

}  // namespace torchqp
