#pragma once
// The types of what the operators return, in the order of schema.cpp.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <tuple>
#include <utility>

namespace torchqp::torch_ops {

using at::Tensor;

/// std::tuple of N tensors.
template <size_t N>
using Tensors = decltype(std::tuple_cat(std::declval<std::array<Tensor, N>>()));

using SolveOutputs = Tensors<11>;    ///< of solve
using SolutionOutputs = Tensors<9>;  ///< those of them from z to residuals
using KktOutputs = Tensors<5>;       ///< of kkt_solve
using Gradients = Tensors<8>;        ///< of parameter_gradients
using KktGradients = Tensors<13>;    ///< of kkt_gradients
using LpgdOutputs = Tensors<11>;     ///< of lpgd

/// The places of Q, G and A among the Gradients.
inline constexpr std::array<size_t, 3> kMatrixPlaces = {0, 1, 4};

}  // namespace torchqp::torch_ops
