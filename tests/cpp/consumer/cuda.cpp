// Asks how much memory a batch needs on a GPU whose properties are given: links the installed library,
// runs without a GPU and without nvcc.
#include <cstdio>
#include <torchqp/cuda/solve_batch.hpp>

int main() {
  torchqp::cuda::Device device;
  device.multiprocessors = 132;
  device.threads_per_multiprocessor = 2048;
  device.registers_per_multiprocessor = 65536;
  device.shared_per_multiprocessor = 228 * 1024;
  device.shared_per_block = 227 * 1024;
  device.shared_reserved = 1024;
  torchqp::Dims dims;
  dims.n = 300;
  dims.p = 1;
  dims.lb = true;
  const size_t bytes = torchqp::cuda::solve_workspace_bytes<double>(dims, 1000, device, true);
  std::printf("%zu bytes of scratch\n", bytes);
  return bytes > 0 ? 0 : 1;
}
