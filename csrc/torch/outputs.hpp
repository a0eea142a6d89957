#pragma once
// What the kernels of the operators allocate, and the contiguous copies that they have to make.

#include <ATen/core/Tensor.h>

#include <array>
#include <initializer_list>
#include <utility>
#include <vector>

#include "core/gradients.hpp"
#include "core/problem.hpp"
#include "torch/args.hpp"

namespace torchqp::torch_ops {

/// A fresh contiguous output [*, core].
template <class Machine>
Tensor output(const Machine& machine, const Batch& batch, std::initializer_list<int64_t> core,
              at::ScalarType dtype) {
  c10::DimVector shape = batch.shape;
  shape.append(core.begin(), core.end());
  return machine.empty(shape, dtype);
}

/// `tensor` as a contiguous array over the whole batch; its leading dimensions need not cover that.
inline Tensor dense(const Tensor& tensor, int64_t core_dims, const Batch& batch) {
  c10::DimVector shape = batch.shape;
  if (core_dims == 1) shape.push_back(tensor.size(-1));
  if (tensor.sizes() == shape && tensor.is_contiguous()) return tensor;
  return tensor.expand(shape).contiguous();
}

/// The answers to a batch of linearised systems.
struct AdjointOutputs {
  Tensor d_z, d_nu, d_lam, d_bound, info;

  template <class Machine>
  AdjointOutputs(const Machine& machine, const Batch& batch, at::ScalarType dtype)
      : d_z(output(machine, batch, {batch.dims.n}, dtype)),
        d_nu(output(machine, batch, {batch.dims.p}, dtype)),
        d_lam(output(machine, batch, {batch.dims.m}, dtype)),
        d_bound(output(machine, batch, {batch.dims.bounds() ? batch.dims.n : 0}, dtype)),
        info(output(machine, batch, {}, at::kInt)) {}

  template <class T>
  void receive(KktBatch<T>& system) const {
    system.d_z = d_z.mutable_data_ptr<T>();
    system.d_nu = d_nu.mutable_data_ptr<T>();
    system.d_lam = d_lam.mutable_data_ptr<T>();
    system.d_bound = system.dims.bounds() ? d_bound.mutable_data_ptr<T>() : nullptr;
    system.info = info.mutable_data_ptr<int32_t>();
  }
};

/// The gradients of the parameters that are wanted of every member, in the order of
/// parameter_gradients.
struct GradientOutputs {
  std::array<bool, 8> wanted;
  std::array<Tensor, 8> grads;
  int64_t entries = 0;  ///< of one member

  template <class Machine>
  GradientOutputs(const Machine& machine, const Batch& batch, const std::array<bool, 8>& asked,
                  at::ScalarType dtype)
      : wanted(asked) {
    const int64_t n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
    const auto add = [&](size_t i, std::initializer_list<int64_t> core) {
      grads[i] = wanted[i] ? output(machine, batch, core, dtype) : machine.empty({0}, dtype);
      if (wanted[i]) entries += c10::multiply_integers(core);
    };
    if (batch.dims.diagonal) {
      add(0, {n});
    } else {
      add(0, {n, n});
    }
    add(1, {m, n}), add(2, {m}), add(3, {m});
    add(4, {p, n}), add(5, {p});
    add(6, {n}), add(7, {n});
  }

  template <class T>
  void receive(GradientBatch<T>& batch) const {
    T** const arrays[] = {&batch.Q, &batch.G, &batch.h_lower, &batch.h,
                          &batch.A, &batch.b, &batch.lb,      &batch.ub};
    for (size_t i = 0; i < grads.size(); ++i) {
      if (wanted[i]) *arrays[i] = grads[i].mutable_data_ptr<T>();
    }
  }
};

/// The arrays that gradients are formed from, contiguous over the batch.
template <class T>
class GradientSources {
 public:
  GradientSources(const GradientTensors& tensors, const Batch& batch) {
    const auto values = [&](const Tensor& tensor) {
      return keep(dense(tensor, 1, batch)).template const_data_ptr<T>();
    };
    const auto optional = [&](const OptionalTensor& tensor) -> const T* {
      return given(tensor) != nullptr && tensor->numel() != 0 ? values(*tensor) : nullptr;
    };
    view_.dims = batch.dims;
    view_.size = batch.size;
    view_.z = values(tensors.z), view_.nu = values(tensors.nu), view_.lam = values(tensors.lam);
    view_.d_z = values(tensors.d_z), view_.d_nu = values(tensors.d_nu);
    view_.d_lam = values(tensors.d_lam);
    view_.d_bound = optional(tensors.d_bound);
    view_.g_slack = optional(tensors.g_slack);
    view_.active = keep(dense(tensors.active, 1, batch)).template const_data_ptr<int8_t>();
    view_.status = keep(dense(tensors.status, 0, batch)).template const_data_ptr<int32_t>();
  }
  GradientSources(const GradientSources&) = delete;
  GradientSources& operator=(const GradientSources&) = delete;

  const GradientBatch<T>& view() const { return view_; }

 private:
  const Tensor& keep(Tensor tensor) { return kept_.emplace_back(std::move(tensor)); }

  GradientBatch<T> view_;
  std::vector<Tensor> kept_;
};

}  // namespace torchqp::torch_ops
