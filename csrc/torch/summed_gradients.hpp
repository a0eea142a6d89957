#pragma once
// The gradients of matrices that all members share: sums over the batch of those of its members, whose
// formulas are in core/gradients.hpp. Failed members add nothing.

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/gradients.hpp"
#include "core/status.hpp"
#include "torch/args.hpp"
#include "torch/outer_products.hpp"

namespace torchqp::torch_ops {

/// Sums [n, n] (a diagonal: [n]), [m, n] and [p, n] for those of Q, G and A that are wanted. Formed by
/// the machine while it writes the gradients of the members, where it does that (in double precision,
/// the sum of Q's symmetric to the last bit), else as matrix products.
class SummedGradients {
 public:
  int64_t entries = 0;  ///< of one member, summed by the machine

  template <class Machine>
  SummedGradients(const Machine& machine, const Batch& batch, const std::array<bool, 3>& wanted)
      : batch_(batch), wanted_(wanted), rows_{batch.dims.n, batch.dims.m, batch.dims.p} {
    const int64_t n = batch.dims.n;
    int64_t padded_rows = 0;
    for (size_t k = 0; k < 3; ++k) {
      entries += wanted[k] ? rows_[k] * n : 0;
      padded_rows += wanted[k] ? GradientSums::padded(rows_[k]) : 0;
    }
    if ((wanted[0] && batch.dims.diagonal) || !machine.sums_gradients(entries)) entries = 0;
    if (entries == 0) return;
    constexpr int64_t kUnit = GradientSums::kMembers;
    const auto pieces = [&](int64_t of) { return (batch.size + of - 1) / of; };
    part_ = kUnit * std::max<int64_t>(1, pieces(kUnit * kMostParts));
    parts_ = pieces(part_);
    buffer_ = machine.empty({parts_ * padded_rows * GradientSums::padded(n)}, at::kDouble);
  }
  SummedGradients(const SummedGradients&) = delete;
  SummedGradients& operator=(const SummedGradients&) = delete;

  /// Where the machine adds.
  template <class T>
  void receive(GradientBatch<T>& batch) const {
    if (entries == 0) return;
    double* next = buffer_.mutable_data_ptr<double>();
    std::fill_n(next, buffer_.numel(), 0.0);
    double** const arrays[] = {&batch.sums.Q, &batch.sums.G, &batch.sums.A};
    for (size_t k = 0; k < 3; ++k) {
      if (!wanted_[k]) continue;
      *arrays[k] = next;
      next += parts_ * part_size(k);
    }
    batch.sums.part = part_;
  }

  /// Sets those of Q, G and A that are wanted to their sums, contiguous.
  template <class T, class Machine>
  void finish(const Machine& machine, const GradientTensors& of, Tensor& Q, Tensor& G,
              Tensor& A) const {
    if (entries == 0) {
      if (wanted_[0] || wanted_[1] || wanted_[2]) multiply(of, Q, G, A);
      return;
    }
    Tensor* const to[] = {&Q, &G, &A};
    const double* from = buffer_.const_data_ptr<double>();
    for (size_t k = 0; k < 3; ++k) {
      if (!wanted_[k]) continue;
      *to[k] = machine.empty({rows_[k], batch_.dims.n}, c10::CppTypeToScalarType<T>::value);
      add_parts(from, k, to[k]->template mutable_data_ptr<T>());
      from += parts_ * part_size(k);
    }
  }

 private:
  static constexpr int64_t kMostParts = 64;

  int64_t part_size(size_t k) const {
    return GradientSums::padded(rows_[k]) * GradientSums::padded(batch_.dims.n);
  }

  template <class T>
  void add_parts(const double* parts, size_t k, T* to) const {
    const int64_t n = batch_.dims.n, stride = GradientSums::padded(n), size = part_size(k);
    const auto sum = [&](int64_t i, int64_t j) {
      double total = 0;
      for (int64_t part = 0; part < parts_; ++part) total += parts[part * size + i * stride + j];
      return total;
    };
    for (int64_t i = 0; i < rows_[k]; ++i) {
      for (int64_t j = 0; j < n; ++j) to[i * n + j] = static_cast<T>(sum(i, j));
    }
    if (k != 0) return;
    // The two terms of (i, j) and of (j, i) were added in another order.
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < i; ++j) to[j * n + i] = to[i * n + j];
    }
  }

  void multiply(const GradientTensors& of, Tensor& Q, Tensor& G, Tensor& A) const {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto whole = [&](const Tensor& tensor) {
      c10::DimVector shape = batch_.shape;
      shape.push_back(tensor.size(-1));
      return tensor.expand(shape);
    };
    const Tensor solved =
        whole(of.status.le(static_cast<int>(Status::kSolvedInaccurate)).unsqueeze(-1));
    const Tensor* g_slack = given(of.g_slack);
    const MatrixProducts products(
        solved, whole(of.z), whole(of.nu), whole(of.lam), whole(of.d_z), whole(of.d_nu),
        whole(of.d_lam), g_slack == nullptr ? Tensor() : zero_unless(solved, whole(*g_slack)));
    const int64_t n = batch_.dims.n;
    if (wanted_[0]) {
      Q = batch_.dims.diagonal ? products.of_Q({n}, true) : products.of_Q({n, n}, false);
    }
    if (wanted_[1]) G = products.of_G({rows_[1], n});
    if (wanted_[2]) A = products.of_A({rows_[2], n});
  }

  const Batch& batch_;
  std::array<bool, 3> wanted_;
  std::array<int64_t, 3> rows_;
  int64_t part_ = 0, parts_ = 0;
  Tensor buffer_;
};

}  // namespace torchqp::torch_ops
