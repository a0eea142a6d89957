#include "torch/cpu_memory.hpp"

#include <c10/core/CPUAllocator.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace torchqp::torch_ops {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
/// Results from here on are kept. The system's allocator keeps smaller ones by itself.
constexpr size_t kLeastKept = size_t{64} << 10;
/// Results that are kept at most.
constexpr size_t kSlots = 32;

/// What stands before a large result, in memory of its own cache line.
struct alignas(64) Block {
  size_t bytes;  ///< of the result
  c10::DeleterFnPtr free;

  void* data() { return this + 1; }
};

class ResultAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    c10::Allocator* const system = c10::GetCPUAllocator();
    const c10::DeleterFnPtr free = system->raw_deleter();
    if (bytes < kLeastKept || free == nullptr) return system->allocate(bytes);
    Block* block = take(bytes);
    if (block == nullptr) {
      block = new (system->raw_allocate(sizeof(Block) + bytes)) Block{bytes, free};
      advise_huge_pages(block->data(), bytes);
    }
    return {block->data(), block, &release, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  using Slot = std::atomic<Block*>;

  /// A kept block of just this size, or nullptr.
  static Block* take(size_t bytes) {
    for (Slot& slot : slots_) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      Block* const block = slot.exchange(nullptr, std::memory_order_acquire);
      if (block == nullptr) continue;
      if (block->bytes == bytes) {
        kept_.fetch_sub(bytes, std::memory_order_relaxed);
        return block;
      }
      put(slot, block);
    }
    return nullptr;
  }

  /// Keeps a block, at the cost of those that have been kept for longest. The context of a result.
  static void release(void* context) {
    auto* const block = static_cast<Block*>(context);
    if (block->bytes > kKeptResults) {
      discard(block);
      return;
    }
    const size_t now = kept_.fetch_add(block->bytes, std::memory_order_relaxed) + block->bytes;
    if (now > kKeptResults) make_room(now - kKeptResults);
    put(slots_[next_.fetch_add(1, std::memory_order_relaxed) % kSlots], block);
  }

  /// Gives back at least `bytes` bytes of kept blocks, if there are as many.
  static void make_room(size_t bytes) {
    const size_t oldest = next_.load(std::memory_order_relaxed);
    for (size_t i = 0, freed = 0; i < kSlots && freed < bytes; ++i) {
      Block* const block =
          slots_[(oldest + i) % kSlots].exchange(nullptr, std::memory_order_acquire);
      if (block == nullptr) continue;
      freed += block->bytes;
      kept_.fetch_sub(block->bytes, std::memory_order_relaxed);
      discard(block);
    }
  }

  /// Puts a block, which is counted as kept, into a slot, in place of what is there.
  static void put(Slot& slot, Block* block) {
    Block* const old = slot.exchange(block, std::memory_order_acq_rel);
    if (old == nullptr) return;
    kept_.fetch_sub(old->bytes, std::memory_order_relaxed);
    discard(old);
  }

  static void discard(Block* block) {
    const c10::DeleterFnPtr free = block->free;
    free(block);
  }

  static inline std::array<Slot, kSlots> slots_{};
  static inline std::atomic<size_t> kept_{0}, next_{0};
};

}  // namespace

void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kLeast = 2 * kHugePage;
  if (bytes < kLeast) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (begin + bytes) / kHugePage * kHugePage;
  // Whole huge pages only: the memory around the array keeps its own.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

c10::Allocator* result_allocator() {
  // Never destroyed: results can outlive whatever ends at exit.
  static auto* const allocator = new ResultAllocator;
  return allocator;
}

}  // namespace torchqp::torch_ops
