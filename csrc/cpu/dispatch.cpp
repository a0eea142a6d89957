// Picks the instruction-set level once and forwards to it. TORCHQP_HAS_AVX2 and TORCHQP_HAS_AVX512 say
// which levels were compiled beside the least one (csrc/cmake/core.cmake).

#include "cpu/gradient_batch.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"

namespace torchqp::cpu {

const KernelTable& kernels() {
  static const KernelTable& chosen = []() -> const KernelTable& {
#if defined(TORCHQP_HAS_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
      return kernels_avx512();
    }
#endif
#if defined(TORCHQP_HAS_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2();
#endif
    return kernels_baseline();
  }();
  return chosen;
}

namespace {

template <class T>
const Kernels<T>& kernels_for() {
  if constexpr (sizeof(T) == 4) {
    return kernels().single_precision;
  } else {
    return kernels().double_precision;
  }
}

}  // namespace

template <class T>
int pack_width() {
  return kernels_for<T>().width;
}
template <class T>
int members_per_pack(const Dims& dims) {
  return kernels_for<T>().members_per_pack(dims);
}
template <class T>
size_t solve_workspace_bytes(const Dims& dims) {
  return kernels_for<T>().solve_bytes(dims);
}
template <class T>
void solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                 const SolutionBatch<T>& solution, int64_t begin, int64_t end, void* workspace) {
  kernels_for<T>().solve(problem, settings, solution, begin, end, workspace);
}
template <class T>
size_t kkt_workspace_bytes(const Dims& dims) {
  return kernels_for<T>().kkt_bytes(dims);
}
template <class T>
void kkt_batch(const KktBatch<T>& system, int64_t begin, int64_t end, void* workspace) {
  kernels_for<T>().kkt(system, begin, end, workspace);
}
template <class T>
void gradient_batch(const GradientBatch<T>& batch, int64_t begin, int64_t end) {
  kernels_for<T>().gradients(batch, begin, end);
}

#define TORCHQP_INSTANTIATE(T)                                                                \
  template int pack_width<T>();                                                               \
  template int members_per_pack<T>(const Dims&);                                              \
  template size_t solve_workspace_bytes<T>(const Dims&);                                      \
  template void solve_batch(const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&, \
                            int64_t, int64_t, void*);                                         \
  template size_t kkt_workspace_bytes<T>(const Dims&);                                        \
  template void kkt_batch(const KktBatch<T>&, int64_t, int64_t, void*);                       \
  template void gradient_batch(const GradientBatch<T>&, int64_t, int64_t);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cpu
