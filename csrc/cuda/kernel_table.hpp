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

/// Where what the libraries of a set-up work on begins, in the workspace: an entry a team.
template <class Scalar>
struct SetupPointers {
  Scalar **L, **V;  ///< written by lay_out
};

/// The kernels around a set-up by libraries, see member_setup.hpp; nullptr over narrow teams.
///
///   lay_out  ProblemBatch<T>, int64_t group, SetupPointers<Scalar>, Split, unsigned char* workspace
///   couple   Dims, Split, unsigned char* workspace
///   finish   ProblemBatch<T>, Settings, SolutionBatch<T>, int64_t group, int64_t rounds,
///            const int* info, Split, unsigned char* workspace
///
/// `group` is that of the first team.
struct SetupKernels {
  const void *lay_out, *couple, *finish;
};

/// Entry points on data of type T, as cudaLaunchKernel wants them. Their parameters:
///
///   solve, retry  ProblemBatch<T>, Settings, SolutionBatch<T>, Split, unsigned char* workspace
///   kkt           KktBatch<T>, Split, unsigned char* workspace
///
/// retry solves in double precision the members that single precision did not solve; nullptr for
/// double. So does setup_retry, all members.
struct Kernels {
  const void *solve, *retry, *kkt;
  SetupKernels setup, setup_retry;
};

struct KernelTable {
  Kernels single_precision, double_precision;
};

const KernelTable& narrow_kernels();
const KernelTable& wide_kernels();

}  // namespace torchqp::cuda
