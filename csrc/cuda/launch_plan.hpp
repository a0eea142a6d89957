#pragma once
// How a batch is laid out on a GPU: a pure function of sizes and of the GPU's limits, so that any
// plan can be tested on any machine.

#include <cstddef>
#include <cstdint>

#include "core/problem.hpp"
#include "cuda/device.hpp"
#include "qp/workspace.hpp"

namespace torchqp::cuda {

/// One launch. Each team has a head (the object that it works with) and the hot part of its arena in
/// shared memory, and the cold part in the workspace. Teams take members in turn until none is left.
struct LaunchPlan {
  bool wide = false;  ///< a team is a block (WideTeam), else a part of a warp (NarrowTeam)
  int lanes = 0;      ///< of a team
  int teams = 0;      ///< of a block
  int64_t blocks = 0;
  qp::Heat coldest = qp::Heat::kVector;  ///< pieces of the arena up to this heat are hot
  bool hot = false;        ///< whether the hot pieces lie in shared memory, or all in the workspace
  int64_t head_bytes = 0;  ///< of one team
  int64_t hot_bytes = 0;   ///< of one team
  int64_t cold_bytes = 0;  ///< of one team
  int64_t shared_bytes = 0;     ///< of one block
  int64_t workspace_bytes = 0;  ///< of the launch
  int threads() const { return lanes * teams; }
};

/// The plan of a solve in the precision Scalar.
template <class Scalar>
LaunchPlan plan_solve(const Dims& dims, int64_t size, const Device& device);

/// Whether the set-up of a solve is for libraries: in the dual form, with more than 160 variables or
/// rows. Follows from the sizes alone.
bool prefers_libraries(const Dims& dims);

/// The plan of the kernels around a set-up by libraries. A team keeps its place in the workspace from
/// kernel to kernel, and all matrices are there.
template <class Scalar>
LaunchPlan plan_setup(const Dims& dims, int64_t size, const Device& device);

/// The plan of a linearised KKT solve.
template <class Scalar>
LaunchPlan plan_kkt(const Dims& dims, int64_t size, const Device& device);

}  // namespace torchqp::cuda
