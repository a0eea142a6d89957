#pragma once
// The kernels that each kind of team provides; solve_batch.cpp picks by the plan and launches.

#include "cuda/launch_plan.hpp"

namespace torchqp::cuda {

/// What a kernel is told of its plan.
struct Split {
  int lanes;
  bool hot;
  qp::Heat coldest;
  int64_t head_bytes, hot_bytes, cold_bytes;
};

/// Entry points on data of type T, as cudaLaunchKernel wants them. Their parameters:
///
///   solve, retry  ProblemBatch<T>, Settings, SolutionBatch<T>, Split, unsigned char* workspace
///   kkt           KktBatch<T>, Split, unsigned char* workspace
///
/// retry solves in double precision the members that single precision did not solve; nullptr for
/// double.
struct Kernels {
  const void *solve, *retry, *kkt;
};

struct KernelTable {
  Kernels single_precision, double_precision;
};

const KernelTable& narrow_kernels();
const KernelTable& wide_kernels();

}  // namespace torchqp::cuda
