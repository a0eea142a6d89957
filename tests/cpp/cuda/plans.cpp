// Prints, as JSON, the limits of an H100 and the plans of double-precision solves on it, or of what is
// around a set-up by libraries:
//
//   plans n,m,p,size ...
#include <cstdio>

#include "cuda/h100.hpp"
#include "cuda/launch_plan.hpp"

int main(int count, char** arguments) {
  using namespace torchqp;
  const cuda::Device& device = cuda::kDevice;
  std::printf(
      "{\"device\": {\"multiprocessors\": %d, \"threads\": %d, \"registers\": %d, \"shared\": "
      "%d},\n"
      " \"plans\": [",
      device.multiprocessors, device.threads_per_multiprocessor,
      device.registers_per_multiprocessor, device.shared_per_multiprocessor);
  for (int i = 1; i < count; ++i) {
    Dims dims;
    long long size = 0;
    if (std::sscanf(arguments[i], "%d,%d,%d,%lld", &dims.n, &dims.m, &dims.p, &size) != 4) {
      std::fprintf(stderr, "%s: expected n,m,p,size\n", arguments[i]);
      return 1;
    }
    dims.h_upper = dims.m > 0;
    const bool libraries = cuda::prefers_libraries(dims);
    const cuda::LaunchPlan plan = libraries ? cuda::plan_setup<double>(dims, size, device)
                                            : cuda::plan_solve<double>(dims, size, device);
    std::printf(
        "%s\n  {\"case\": \"%s\", \"libraries\": %s, \"wide\": %s, \"lanes\": %d, \"teams\": %d, "
        "\"blocks\": %lld, "
        "\"hot\": %s, \"coldest\": %d, \"shared_bytes\": %lld, \"cold_bytes\": %lld}",
        i > 1 ? "," : "", arguments[i], libraries ? "true" : "false", plan.wide ? "true" : "false",
        plan.lanes, plan.teams, static_cast<long long>(plan.blocks), plan.hot ? "true" : "false",
        static_cast<int>(plan.coldest), static_cast<long long>(plan.shared_bytes),
        static_cast<long long>(plan.cold_bytes));
  }
  std::printf("]}\n");
}
