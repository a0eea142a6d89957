#include "cuda/kernels.cuh"

namespace torchqp::cuda {

const KernelTable& wide_kernels() {
  return kernels_of<WideTeam>();
}

}  // namespace torchqp::cuda
