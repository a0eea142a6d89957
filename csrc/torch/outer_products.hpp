#pragma once
// The gradients of matrices as differentiable products, summed over the members that share one.

#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>

#include <utility>
#include <vector>

namespace torchqp::torch_ops {

using at::Tensor;

/// left @ right; that of float32 in float64. torch's switches for reduced precision would else reach
/// it, where the device has them.
inline Tensor product(const Tensor& left, const Tensor& right) {
  if (left.scalar_type() != at::kFloat) return at::matmul(left, right);
  return at::matmul(left.to(at::kDouble), right.to(at::kDouble)).to(at::kFloat);
}

/// The sum of u v' over the batch dimensions that an argument of shape `shape` shares.
///
///   u      [*, r]
///   v      [*, c]
///   shape  [.., r, c], leading dimensions that broadcast to [*]; also the result's
///
/// One matrix product whose inner dimension is the summed part of the batch.
inline Tensor sum_of_outer(const Tensor& u, const Tensor& v, at::IntArrayRef shape) {
  const int64_t ndim = u.dim() - 1;
  const int64_t skipped = ndim - (static_cast<int64_t>(shape.size()) - 2);
  std::vector<int64_t> kept, summed, kept_sizes;
  int64_t terms = 1;
  for (int64_t d = 0; d < ndim; ++d) {
    const bool shared = d < skipped || shape[d - skipped] != u.size(d);
    (shared ? summed : kept).push_back(d);
    if (shared) {
      terms *= u.size(d);
    } else {
      kept_sizes.push_back(u.size(d));
    }
  }
  std::vector<int64_t> order = kept;
  order.insert(order.end(), summed.begin(), summed.end());
  order.push_back(ndim);
  const auto stacked = [&](const Tensor& vectors) {
    std::vector<int64_t> sizes = kept_sizes;
    sizes.insert(sizes.end(), {terms, vectors.size(ndim)});
    return vectors.permute(order).reshape(sizes);
  };
  return product(stacked(u).mT(), stacked(v)).reshape(shape);
}

/// The gradient of Q: the symmetric part of the sum of u v', or the sum of u * v for a diagonal.
inline Tensor gradient_of_Q(const Tensor& u, const Tensor& v, at::IntArrayRef shape,
                            bool diagonal) {
  if (diagonal) return at::sum_to(u * v, shape);
  const Tensor outer = sum_of_outer(u, v, shape);
  return (outer + outer.mT()) / 2;
}

/// The gradient of G or A, whose rows have the multipliers y: the sum of d_y z' + y d_z'.
inline Tensor gradient_of_rows(const Tensor& d_y, const Tensor& z, const Tensor& y,
                               const Tensor& d_z, at::IntArrayRef shape) {
  return sum_of_outer(d_y, z, shape) + sum_of_outer(y, d_z, shape);
}

/// `value`, zero where `condition` is false, whatever stands there.
inline Tensor zero_unless(const Tensor& condition, const Tensor& value) {
  return at::where(condition, value, at::Scalar(0));
}

/// The gradients of Q, G and A as products, from a solution and its adjoint over the whole batch; the
/// formulas are those of core/gradients.hpp.
class MatrixProducts {
 public:
  /// `solved`: [*, 1]. A failed member holds NaN, and NaN * 0 is NaN: its values are replaced before
  /// any product. `g_slack`: undefined where it is zero.
  MatrixProducts(const Tensor& solved, const Tensor& z, Tensor nu, Tensor lam, Tensor d_z,
                 Tensor d_nu, const Tensor& d_lam, const Tensor& g_slack)
      : solved_(solved),
        z_(zero_unless(solved, z)),
        nu_(std::move(nu)),
        lam_(std::move(lam)),
        d_z_(std::move(d_z)),
        d_nu_(std::move(d_nu)),
        d_rows_(g_slack.defined() ? d_lam - g_slack : d_lam) {}

  Tensor of_Q(at::IntArrayRef shape, bool diagonal) const {
    return gradient_of_Q(d_z_, z_, shape, diagonal);
  }
  Tensor of_G(at::IntArrayRef shape) const {
    return gradient_of_rows(d_rows_, z_, zero_unless(solved_, lam_), d_z_, shape);
  }
  Tensor of_A(at::IntArrayRef shape) const {
    return gradient_of_rows(d_nu_, z_, zero_unless(solved_, nu_), d_z_, shape);
  }

 private:
  Tensor solved_, z_, nu_, lam_, d_z_, d_nu_, d_rows_;
};

}  // namespace torchqp::torch_ops
