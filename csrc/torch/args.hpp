#pragma once
// What every operator does before any work: check its arguments, find the batch, view the tensors
// as strided arrays.
//
// A wrong argument raises ValueError, a wrong dtype TypeError; the message names the argument, what
// was expected and what was given. Nothing here copies or reads tensor data: expanded, transposed
// and sliced tensors are used in place.

#include <ATen/core/Tensor.h>
#include <c10/util/DimVector.h>

#include <optional>
#include <string_view>

#include "core/lpgd.hpp"
#include "core/problem.hpp"
#include "core/settings.hpp"

namespace torchqp::torch_ops {

using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;

/// The tensor, or nullptr where the argument is absent.
inline const Tensor* given(const OptionalTensor& tensor) {
  return tensor.has_value() && tensor->defined() ? &*tensor : nullptr;
}

/// The tensors of solve, as given. Shapes are in schema.cpp.
struct SolveTensors {
  const Tensor &Q, &q;
  const OptionalTensor &G, &h_lower, &h, &A, &b, &lb, &ub, &z0, &nu0, &lam0, &lam_lb0, &lam_ub0;
  bool diagonal;
};

/// The tensors of kkt_solve, as given.
struct KktTensors {
  const Tensor& Q;
  const OptionalTensor &G, &A;
  const Tensor &active, &status;
  const OptionalTensor& factor;
  const Tensor& g_z;
  const OptionalTensor &g_nu, &g_lam, &g_bound;
  bool diagonal;
};

/// The tensors of parameter_gradients, as given.
struct GradientTensors {
  const Tensor &z, &nu, &lam, &d_z, &d_nu, &d_lam;
  const OptionalTensor &d_bound, &g_slack;
  const Tensor &active, &status;
  bool diagonal;
};

/// The tensors of kkt_gradients beside the system's, as given.
struct SolutionTensors {
  const Tensor &z, &nu, &lam;
  const OptionalTensor& g_slack;
};

/// The tensors of lpgd beside the problem and its solution, as given.
struct LpgdTensors {
  const Tensor& status;
  const OptionalTensor &g_z, &g_nu, &g_lam, &g_lb, &g_ub;
};

/// What checked arguments agree on.
struct Batch {
  Dims dims;
  c10::DimVector shape;  ///< the broadcast leading dimensions
  int64_t size = 1;      ///< their product
};

/// Checks shapes, dtypes, devices and layouts, and that the optional arguments fit together.
Batch check_solve(const SolveTensors& tensors);
Batch check_kkt(const KktTensors& tensors);
Batch check_gradients(const GradientTensors& tensors);
Batch check_kkt_gradients(const KktTensors& system, const SolutionTensors& solution);
/// The solution stands in `problem` as where to start.
Batch check_lpgd(const SolveTensors& problem, const LpgdTensors& tensors);

/// Checks the numbers and the name of the derivative rule.
Settings check_settings(std::string_view backward, double eps_abs, double eps_rel, int64_t max_iter,
                        bool polish, bool best_iterate);

void check_lpgd_options(double tau, int64_t side, double rho);

/// The tensors as arrays of T, which is their dtype; `batch` comes from the check.
template <class T>
ProblemBatch<T> problem_batch(const SolveTensors& tensors, const Batch& batch);

/// The arrays that lpgd_move reads; the contiguous ones are left for the caller to set.
template <class T>
LpgdBatch<T> lpgd_batch(const SolveTensors& problem, const LpgdTensors& tensors,
                        const Batch& batch);

/// As above. The outputs d_* are left for the caller to set.
template <class T>
KktBatch<T> kkt_batch(const KktTensors& tensors, const Batch& batch);

}  // namespace torchqp::torch_ops
