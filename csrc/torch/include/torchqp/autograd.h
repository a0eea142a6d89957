#pragma once
// Differentiable batched QPs for LibTorch programs, without Python. Link libtorchqp_ops.
//
//   z* = argmin 1/2 z'Qz + q'z   s.t.  Az = b,  h_lower <= Gz <= h,  lb <= z <= ub
//
//   L = 1/2 z'Qz + q'z + nu'(Az - b) + lam'(Gz - h) + lam_ub'(z - ub) + lam_lb'(lb - z)
//
// The gradient is the exact one of the KKT conditions on the active constraints, of every argument
// and through every multiplier, to any order. That of an argument shared by the batch is the sum
// over the batch. A member with status >= 2 returns NaN (or its last iterate, see
// Settings::best_iterate) and contributes exactly zero to gradients.
//
// A wrong shape, device or setting throws c10::ValueError, a wrong dtype c10::TypeError, before any
// work; CUDA tensors throw c10::NotImplementedError where the operators were built without CUDA. On
// CUDA all work, backward included, is on the current stream, and nothing waits for it. Thread-safe.
// Forward mode and torch.func are the Python package's.

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <optional>

#include "core/settings.hpp"

namespace torchqp {

/// What solve_qp returns; [*] is the broadcast of all leading dimensions. Multipliers of absent
/// arguments have no entries.
struct Solution {
  at::Tensor z;           ///< [*, n]
  at::Tensor nu;          ///< [*, p] multipliers of Az = b
  at::Tensor lam;         ///< [*, m] of the rows of G, upper side minus lower side
  at::Tensor lam_lb;      ///< [*, n] or [*, 0]; >= 0
  at::Tensor lam_ub;      ///< [*, n] or [*, 0]; >= 0
  at::Tensor s;           ///< [*, m] slacks h - Gz; +inf where there is no upper side
  at::Tensor status;      ///< [*] int32, enum class Status of core/status.hpp
  at::Tensor iterations;  ///< [*] int32
  at::Tensor residuals;   ///< [*, 4] stationarity, primal, dual sign, duality gap, relative
};

/// Solves a batch of QPs. float32 or float64, strided tensors of any strides, all on one CPU or CUDA
/// device; shared arguments are not copied.
///
///   Q  [*, n, n] positive semidefinite, or its diagonal [*, n] when `diagonal`     q  [*, n]
///   G  [*, m, n] with h or h_lower [*, m] or both      A [*, p, n] with b [*, p]   lb, ub  [*, n]
///   settings  nullopt: the dtype's defaults
C10_EXPORT Solution
solve_qp(const at::Tensor& Q, const at::Tensor& q, const std::optional<at::Tensor>& G = {},
         const std::optional<at::Tensor>& h = {}, const std::optional<at::Tensor>& A = {},
         const std::optional<at::Tensor>& b = {}, const std::optional<at::Tensor>& lb = {},
         const std::optional<at::Tensor>& ub = {}, const std::optional<at::Tensor>& h_lower = {},
         const std::optional<Settings>& settings = {}, bool diagonal = false);

}  // namespace torchqp
