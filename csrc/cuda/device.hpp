#pragma once
// What a launch plan needs to know of a GPU: plain numbers, so that plans for any GPU can be made and
// tested on a machine without one.

namespace torchqp::cuda {

struct Device {
  int multiprocessors = 0;
  int threads_per_multiprocessor = 0;
  int registers_per_multiprocessor = 0;
  int shared_per_multiprocessor = 0;  ///< bytes of shared memory that all blocks of one may use
  int shared_per_block = 0;           ///< bytes that one block may opt in to
  int shared_reserved = 0;            ///< bytes that every block takes beside its own
};

}  // namespace torchqp::cuda
