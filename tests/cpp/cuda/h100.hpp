#pragma once
// The limits of an H100 and of an H200, for plans on machines without one.

#include "cuda/device.hpp"

namespace torchqp::cuda {

/// The GPU whose plans the tests run.
inline constexpr Device kDevice{132, 2048, 65536, 233472, 232448, 1024};

}  // namespace torchqp::cuda
