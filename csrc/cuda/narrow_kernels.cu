#include "cuda/kernels.cuh"

namespace torchqp::cuda {

const KernelTable& narrow_kernels() {
  return kernels_of<NarrowTeam>();
}

}  // namespace torchqp::cuda
