#pragma once
// The launches that each kind of team provides; solve_batch.cpp picks one by the plan.

#include <cuda_runtime_api.h>

#include "core/problem.hpp"
#include "core/settings.hpp"
#include "cuda/launch_plan.hpp"

namespace torchqp::cuda {

/// Launches on data of type T, each in the memory of its plan.
template <class T>
struct Launches {
  cudaError_t (*solve)(const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&,
                       const LaunchPlan&, void* workspace, cudaStream_t);
  /// In double precision, the members that single precision did not solve; nothing for double.
  cudaError_t (*retry)(const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&,
                       const LaunchPlan&, void* workspace, cudaStream_t);
  cudaError_t (*kkt)(const KktBatch<T>&, const LaunchPlan&, void* workspace, cudaStream_t);
};

struct KernelTable {
  Launches<float> single_precision;
  Launches<double> double_precision;
};

const KernelTable& narrow_kernels();
const KernelTable& wide_kernels();

}  // namespace torchqp::cuda
