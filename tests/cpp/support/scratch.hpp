#pragma once
// Scratch memory that tells on its users: it starts as signalling NaNs, and every block has guards.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/sanitizers.hpp"

#if defined(TORCHQP_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace torchqp::support {

/// Fills memory with signalling NaNs of type T (float or double), or with 0xA5 for other types:
/// whoever reads before writing shows in the result.
template <class T>
void poison(T* data, size_t count) {
  if constexpr (sizeof(T) == 8) {
    const uint64_t nan = 0x7FF4A5A5A5A5A5A5;
    for (size_t i = 0; i < count; ++i) std::memcpy(data + i, &nan, sizeof nan);
  } else if constexpr (std::is_same_v<T, float>) {
    const uint32_t nan = 0x7FA5A5A5;
    for (size_t i = 0; i < count; ++i) std::memcpy(data + i, &nan, sizeof nan);
  } else {
    std::memset(static_cast<void*>(data), 0xA5, count * sizeof(T));
  }
}

/// Hands out 64-byte-aligned, poisoned blocks with guard bytes on both sides.
///
/// Under AddressSanitizer the guards are unaddressable; without it, `intact()` tells whether anyone
/// has written there.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    for (const Block& block : blocks_) set_guards_addressable(block);
  }

  /// `count` elements whose scalars have type T; Element is T or holds only T (a Pack).
  template <class T, class Element = T>
  Element* get(size_t count) {
    static_assert(sizeof(Element) % sizeof(T) == 0);
    Block block;
    block.bytes = count * sizeof(Element);
    block.capacity = 2 * kGuard + (block.bytes + 63) / 64 * 64;
    block.memory.reset(static_cast<unsigned char*>(std::aligned_alloc(64, block.capacity)));
    std::memset(block.memory.get(), kCanary, block.capacity);
    poison(reinterpret_cast<T*>(block.memory.get() + kGuard), block.bytes / sizeof(T));
#if defined(TORCHQP_ADDRESS_SANITIZER)
    ASAN_POISON_MEMORY_REGION(block.memory.get(), kGuard);
    unsigned char* end = block.memory.get() + kGuard + block.bytes;
    ASAN_POISON_MEMORY_REGION(end, block.capacity - kGuard - block.bytes);
#endif
    blocks_.push_back(std::move(block));
    return reinterpret_cast<Element*>(blocks_.back().memory.get() + kGuard);
  }

  /// A poisoned block that starts with a copy of `values`.
  template <class T>
  T* copy(const std::vector<T>& values) {
    T* block = get<T>(values.size());
    if (!values.empty()) std::memcpy(block, values.data(), values.size() * sizeof(T));
    return block;
  }

  /// True while no byte before or after any block has been changed.
  bool intact() const {
    for (const Block& block : blocks_) {
      set_guards_addressable(block);
      for (size_t i = 0; i < block.capacity; ++i) {
        const bool inside = i >= kGuard && i < kGuard + block.bytes;
        if (!inside && block.memory.get()[i] != kCanary) return false;
      }
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kCanary = 0xC7;

  struct Free {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };
  struct Block {
    std::unique_ptr<unsigned char, Free> memory;
    size_t bytes = 0, capacity = 0;
  };

  static void set_guards_addressable([[maybe_unused]] const Block& block) {
#if defined(TORCHQP_ADDRESS_SANITIZER)
    ASAN_UNPOISON_MEMORY_REGION(block.memory.get(), block.capacity);
#endif
  }

  std::vector<Block> blocks_;
};

}  // namespace torchqp::support
