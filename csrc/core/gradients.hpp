#pragma once
// The gradients of a batch of solves in their own data: what goes in, and where they go. No ownership.

#include <cstdint>

#include "core/problem.hpp"

namespace torchqp {

/// Where the gradients of matrices that all members share are summed: in parts of the batch, each the
/// sum over its members in their order, whichever thread adds it up. Layout [parts, padded(rows),
/// padded(n)], zero before the first member.
struct GradientSums {
  static constexpr int64_t kPadding = 8;   ///< rows and columns are padded to multiples of this
  static constexpr int64_t kMembers = 32;  ///< parts have a multiple of this many members

  double *Q = nullptr, *G = nullptr, *A = nullptr;  ///< nullptr: not summed
  int64_t part = 0;                                 ///< members of a part; 0: nothing is summed

  static constexpr int64_t padded(int64_t size) {
    return (size + kPadding - 1) / kPadding * kPadding;
  }
};

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
  GradientSums sums;  ///< on the CPU
};

/// The gradients of one member, by rows of rank two: row(j) = a * left(j) + b * right(j), with left =
/// z and right = d_z for every matrix.
template <class T>
class MemberGradients {
 public:
  TORCHQP_HD MemberGradients(const GradientBatch<T>& batch, int64_t member)
      : batch_(batch),
        n_(batch.dims.n),
        z_(batch.z + member * n_),
        d_z_(batch.d_z + member * n_),
        nu_(batch.nu + member * batch.dims.p),
        d_nu_(batch.d_nu + member * batch.dims.p),
        lam_(batch.lam + member * batch.dims.m),
        d_lam_(batch.d_lam + member * batch.dims.m),
        active_(batch.active + member * (batch.dims.m + (batch.dims.bounds() ? n_ : 0))),
        d_bound_(batch.d_bound == nullptr ? nullptr : batch.d_bound + member * n_),
        g_slack_(batch.g_slack == nullptr ? nullptr : batch.g_slack + member * batch.dims.m) {}

  struct Row {
    T a, b;  ///< factors of z and of d_z
  };
  // Halves are exact, so that (i, j) and (j, i) of Q are the same two products.
  TORCHQP_HD Row Q(int64_t i) const { return {d_z_[i] / 2, z_[i] / 2}; }
  TORCHQP_HD Row G(int64_t i) const {
    return {g_slack_ == nullptr ? d_lam_[i] : d_lam_[i] - g_slack_[i], lam_[i]};
  }
  TORCHQP_HD Row A(int64_t i) const { return {d_nu_[i], nu_[i]}; }
  TORCHQP_HD const T* z() const { return z_; }
  TORCHQP_HD const T* d_z() const { return d_z_; }

  TORCHQP_HD T diagonal(int64_t i) const { return d_z_[i] * z_[i]; }
  TORCHQP_HD T b(int64_t i) const { return -d_nu_[i]; }
  TORCHQP_HD T h(int64_t i) const {
    const T side = on_side(d_lam_, active_, i, 1);
    return g_slack_ == nullptr ? side : side + g_slack_[i];
  }
  TORCHQP_HD T h_lower(int64_t i) const { return on_side(d_lam_, active_, i, -1); }
  TORCHQP_HD T ub(int64_t i) const { return on_side(d_bound_, active_ + batch_.dims.m, i, 1); }
  TORCHQP_HD T lb(int64_t i) const { return on_side(d_bound_, active_ + batch_.dims.m, i, -1); }

 private:
  /// -d where this side holds.
  TORCHQP_HD static T on_side(const T* d, const int8_t* active, int64_t i, int sign) {
    return d != nullptr && active[i] == sign ? -d[i] : T(0);
  }

  const GradientBatch<T>& batch_;
  int64_t n_;
  const T *z_, *d_z_, *nu_, *d_nu_, *lam_, *d_lam_;
  const int8_t* active_;
  const T *d_bound_, *g_slack_;
};

}  // namespace torchqp
