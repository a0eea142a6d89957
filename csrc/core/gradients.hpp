#pragma once
// The gradients of a batch of solves in their own data: what goes in, and where they go. No ownership.

#include <cstdint>

#include "core/problem.hpp"

namespace torchqp {

/// One solution and one adjoint d (see KktBatch) per member, and where the gradients go. All arrays
/// are contiguous, batch first.
///
///   Q = (d_z z' + z d_z') / 2    G = (d_lam - g_slack) z' + lam d_z'    A = d_nu z' + nu d_z'
///   h = -d_lam on upper sides + g_slack    h_lower = -d_lam on lower sides    b = -d_nu
///   ub = -d_bound on upper sides           lb = -d_bound on lower sides
///
/// A diagonal Q has the gradient d_z * z. A member with status >= 2 gets zeros, whatever it holds.
template <class T>
struct GradientBatch {
  Dims dims;  ///< n, m, p, diagonal; lb = ub = true when `active` covers bounds
  int64_t size = 0;
  const T *z = nullptr, *nu = nullptr, *lam = nullptr;
  const T *d_z = nullptr, *d_nu = nullptr, *d_lam = nullptr;
  const T* d_bound = nullptr;       ///< [batch, n], or nullptr: zero
  const T* g_slack = nullptr;       ///< [batch, m] cotangent of h - G z, or nullptr: zero
  const int8_t* active = nullptr;   ///< [batch, m (+ n with bounds)]
  const int32_t* status = nullptr;  ///< [batch]
  /// nullptr: not wanted.
  T *Q = nullptr, *G = nullptr, *h_lower = nullptr, *h = nullptr, *A = nullptr, *b = nullptr,
    *lb = nullptr, *ub = nullptr;
};

}  // namespace torchqp
