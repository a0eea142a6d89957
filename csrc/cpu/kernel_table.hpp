#pragma once
// What each instruction-set level of the CPU path provides; dispatch.cpp picks one table at run
// time.

#include <cstddef>
#include <cstdint>

#include "core/gradients.hpp"
#include "core/problem.hpp"
#include "core/settings.hpp"

namespace torchqp::cpu {

template <class T>
struct Kernels {
  int width;
  int (*members_per_pack)(const Dims&);
  size_t (*solve_bytes)(const Dims&);
  void (*solve)(const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&, int64_t begin,
                int64_t end, void*);
  size_t (*kkt_bytes)(const Dims&);
  void (*kkt)(const KktBatch<T>&, int64_t begin, int64_t end, void*);
  void (*gradients)(const GradientBatch<T>&, int64_t begin, int64_t end);
};

struct KernelTable {
  const char* name;
  Kernels<float> single_precision;
  Kernels<double> double_precision;
};

const KernelTable& kernels_baseline();
const KernelTable& kernels_avx2();
const KernelTable& kernels_avx512();

/// The best level that this machine runs.
const KernelTable& kernels();

}  // namespace torchqp::cpu
