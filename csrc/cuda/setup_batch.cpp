#include "cuda/setup_batch.hpp"

#include <algorithm>

#include "cuda/launch.hpp"
#include "cuda/libraries.hpp"
#include "cuda/member_setup.hpp"
#include "cuda/team.hpp"
#include "qp/member_order.hpp"

namespace torchqp::cuda {
namespace {

/// The matrices of all teams of a launch: those of the first, and how far the next are.
template <class Scalar>
struct SetupArrays {
  qp::DualSchur<Scalar> schur;
  int64_t apart;  ///< in scalars
  SetupPointers<Scalar> pointers;
  int* info;
};

/// What lies behind the teams' own memory in the workspace.
template <class Scalar>
int64_t table_bytes(int64_t teams) {
  return teams * int64_t{2 * sizeof(Scalar*) + sizeof(int)};
}

/// The device's addresses, which the host computes as a kernel does, and does not look at.
template <class Scalar>
SetupArrays<Scalar> arrays_in(void* workspace, const LaunchPlan& plan, const Dims& dims) {
  qp::Arena<Scalar> arena;
  arena.overlays = true;
  (plan.hot ? arena.cold_block : arena.block) = static_cast<Scalar*>(workspace);
  arena.coldest = plan.hot ? plan.coldest : qp::Heat::kData;
  const MemberSetup<Scalar, Scalar> first(qp::Shape::of<WideTeam, Scalar>(dims), Settings{}, arena);
  unsigned char* table = static_cast<unsigned char*>(workspace) + plan.workspace_bytes;
  SetupPointers<Scalar> pointers;
  pointers.L = reinterpret_cast<Scalar**>(table), pointers.V = pointers.L + plan.blocks;
  return {first.members.solver.dual.schur, plan.cold_bytes / int64_t{sizeof(Scalar)}, pointers,
          reinterpret_cast<int*>(pointers.V + plan.blocks)};
}

/// The calls of one pass, over the first `plan.blocks` places: laid out before, T after it.
template <class Scalar>
Error compute_setup(const Libraries& libraries, const SetupKernels& kernels, const Dims& dims,
                    const LaunchPlan& plan, const SetupArrays<Scalar>& arrays, void* workspace,
                    cudaStream_t stream) {
  const qp::DualSchur<Scalar>& schur = arrays.schur;
  const qp::Shape& s = schur.shape;
  const int count = static_cast<int>(plan.blocks), rows = schur.factor.rows;
  const Scalar *V_A = schur.V, *V_G = V_A + int64_t{s.pp} * s.np;
  const auto multiply = [&](double alpha, double beta, const Scalar* X, int X_rows, const Scalar* Y,
                            int Y_rows, int depth, Scalar* P, int stride) {
    const RowProducts<Scalar> of{X, X_rows, Y, Y_rows, depth, P, stride, arrays.apart};
    return multiply_rows(libraries, alpha, beta, of, count);
  };
  Error error = factor_cholesky(libraries, s.np, arrays.pointers.L, arrays.info, count);
  if (!error)
    error = solve_lower_rows(libraries, s.np, arrays.pointers.L, arrays.pointers.V, rows, count);
  if (!error) error = multiply(1, 0, V_G, s.mp, V_G, s.mp, s.np, schur.T, s.mp);
  if (s.p == 0 || error) return error;
  error = multiply(1, 0, V_A, s.pp, V_A, s.pp, s.np, schur.factor.K, rows);
  if (!error) error = multiply(1, 0, V_G, s.mp, V_A, s.pp, s.np, schur.X, s.pp);
  if (!error) error = launch(kernels.couple, plan, workspace, stream, dims);
  if (!error) error = multiply(-1, 1, schur.X, s.mp, schur.X, s.mp, s.pp, schur.T, s.mp);
  return error;
}

}  // namespace

template <class Scalar>
size_t setup_workspace_bytes(const Dims& dims, int64_t size, const Device& device) {
  const LaunchPlan plan = plan_setup<Scalar>(dims, size, device);
  return static_cast<size_t>(plan.workspace_bytes + table_bytes<Scalar>(plan.blocks));
}

template <class Scalar, class T>
Error solve_with_libraries(const SetupKernels& kernels, const ProblemBatch<T>& problem,
                           const Settings& settings, const SolutionBatch<T>& solution,
                           const Device& device, void* workspace, cudaStream_t stream,
                           const Libraries& libraries) {
  const LaunchPlan plan = plan_setup<Scalar>(problem.dims, problem.size, device);
  const SetupArrays<Scalar> arrays = arrays_in<Scalar>(workspace, plan, problem.dims);
  const BlasModes modes(libraries.blas);
  if (modes.error()) return modes.error();
  const qp::MemberOrder order(problem, 1);
  const int64_t groups = (problem.size + order.times() - 1) / order.times();
  // Where all members have the same matrices, a team that has set them up goes on to its last member.
  const bool alike = order.repeats() && order.times() == 1;
  for (int64_t group = 0; group < groups; group += alike ? groups : plan.blocks) {
    LaunchPlan pass = plan;
    pass.blocks = std::min(plan.blocks, groups - group);
    Error error = launch(kernels.lay_out, pass, workspace, stream, problem, group, arrays.pointers);
    if (!error)
      error = compute_setup(libraries, kernels, problem.dims, pass, arrays, workspace, stream);
    const int64_t rounds = alike ? GroupShare{}.rounds : 1;
    const int* info = arrays.info;
    if (!error)
      error = launch(kernels.finish, pass, workspace, stream, problem, settings, solution, group,
                     rounds, info);
    if (error) return error;
  }
  return {};
}

#define TORCHQP_INSTANTIATE(Scalar, T)                                                       \
  template Error solve_with_libraries<Scalar>(                                               \
      const SetupKernels&, const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&, \
      const Device&, void*, cudaStream_t, const Libraries&);
TORCHQP_INSTANTIATE(float, float)
TORCHQP_INSTANTIATE(double, double)
TORCHQP_INSTANTIATE(double, float)
#undef TORCHQP_INSTANTIATE
template size_t setup_workspace_bytes<float>(const Dims&, int64_t, const Device&);
template size_t setup_workspace_bytes<double>(const Dims&, int64_t, const Device&);

}  // namespace torchqp::cuda
