#pragma once
// The kernels of the exact derivative: the linearised system, the gradients that follow from its
// answer, and both in one pass. See ops.hpp.

#include <ATen/Dispatch.h>

#include <array>
#include <tuple>

#include "torch/outputs.hpp"
#include "torch/results.hpp"
#include "torch/summed_gradients.hpp"

namespace torchqp::torch_ops {

template <class Machine>
KktOutputs kkt_solve(const Tensor& Q, const OptionalTensor& G, const OptionalTensor& A,
                     const Tensor& active, const Tensor& status, const OptionalTensor& factor,
                     const Tensor& g_z, const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                     const OptionalTensor& g_bound, bool diagonal) {
  const KktTensors tensors{Q, G, A, active, status, factor, g_z, g_nu, g_lam, g_bound, diagonal};
  const Batch batch = check_kkt(tensors);
  const Machine machine(Q);
  const AdjointOutputs d(machine, batch, Q.scalar_type());
  AT_DISPATCH_FLOATING_TYPES(Q.scalar_type(), "torchqp::kkt_solve", [&] {
    KktBatch<scalar_t> system = kkt_batch<scalar_t>(tensors, batch);
    d.receive(system);
    machine.kkt(system);
  });
  return {d.d_z, d.d_nu, d.d_lam, d.d_bound, d.info};
}

/// Which of Q, G and A, in the order of `wanted`, are wanted as sums; those are taken out of `wanted`.
inline std::array<bool, 3> take_sums(std::array<bool, 8>& wanted,
                                     const std::array<bool, 3>& summed) {
  std::array<bool, 3> sums;
  for (size_t k = 0; k < sums.size(); ++k) {
    bool& own = wanted[kMatrixPlaces[k]];
    sums[k] = own && summed[k];
    own = own && !summed[k];
  }
  return sums;
}

template <class Machine>
Gradients parameter_gradients(const Tensor& z, const Tensor& nu, const Tensor& lam,
                              const Tensor& d_z, const Tensor& d_nu, const Tensor& d_lam,
                              const OptionalTensor& d_bound, const OptionalTensor& g_slack,
                              const Tensor& active, const Tensor& status,
                              std::array<bool, 8> wanted, std::array<bool, 3> summed,
                              bool diagonal) {
  const GradientTensors tensors{z,       nu,      lam,    d_z,    d_nu,    d_lam,
                                d_bound, g_slack, active, status, diagonal};
  const Batch batch = check_gradients(tensors);
  const Machine machine(z);
  const SummedGradients sums(machine, batch, take_sums(wanted, summed));
  GradientOutputs out(machine, batch, wanted, z.scalar_type());
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "torchqp::parameter_gradients", [&] {
    const GradientSources<scalar_t> sources(tensors, batch);
    GradientBatch<scalar_t> gradients = sources.view();
    out.receive(gradients);
    sums.receive(gradients);
    machine.gradients(gradients, out.entries + sums.entries);
    sums.finish<scalar_t>(machine, tensors, out.grads[0], out.grads[1], out.grads[4]);
  });
  return std::tuple_cat(out.grads);
}

template <class Machine>
KktGradients kkt_gradients(const Tensor& Q, const OptionalTensor& G, const OptionalTensor& A,
                           const Tensor& active, const Tensor& status, const OptionalTensor& factor,
                           const Tensor& z, const Tensor& nu, const Tensor& lam, const Tensor& g_z,
                           const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                           const OptionalTensor& g_bound, const OptionalTensor& g_slack,
                           std::array<bool, 8> wanted, std::array<bool, 3> summed, bool diagonal) {
  const KktTensors system_tensors{Q,   G,    A,     active,  status,  factor,
                                  g_z, g_nu, g_lam, g_bound, diagonal};
  const Batch batch = check_kkt_gradients(system_tensors, {z, nu, lam, g_slack});
  const Machine machine(Q);
  const AdjointOutputs d(machine, batch, Q.scalar_type());
  const SummedGradients sums(machine, batch, take_sums(wanted, summed));
  GradientOutputs out(machine, batch, wanted, Q.scalar_type());
  const OptionalTensor d_bound = d.d_bound;
  const GradientTensors tensors{z,       nu,      lam,    d.d_z,  d.d_nu,  d.d_lam,
                                d_bound, g_slack, active, status, diagonal};
  AT_DISPATCH_FLOATING_TYPES(Q.scalar_type(), "torchqp::kkt_gradients", [&] {
    KktBatch<scalar_t> system = kkt_batch<scalar_t>(system_tensors, batch);
    d.receive(system);
    const GradientSources<scalar_t> sources(tensors, batch);
    GradientBatch<scalar_t> gradients = sources.view();
    out.receive(gradients);
    sums.receive(gradients);
    machine.kkt_gradients(system, gradients, out.entries + sums.entries);
    sums.finish<scalar_t>(machine, tensors, out.grads[0], out.grads[1], out.grads[4]);
  });
  return std::tuple_cat(std::make_tuple(d.d_z, d.d_nu, d.d_lam, d.d_bound, d.info), out.grads);
}

}  // namespace torchqp::torch_ops
