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
constexpr size_t kSlots = 128;

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
  /// A kept block. What stands beside it says without taking it what it is, or was a moment ago.
  struct Slot {
    std::atomic<Block*> block;
    std::atomic<size_t> bytes, since;
  };

  /// The block of just this size that was kept last, or nullptr.
  static Block* take(size_t bytes) {
    Slot* latest = nullptr;
    for (Slot& slot : slots_) {
      if (slot.bytes.load(std::memory_order_relaxed) != bytes) continue;
      if (slot.block.load(std::memory_order_relaxed) == nullptr) continue;
      if (latest == nullptr || is_older(*latest, slot)) latest = &slot;
    }
    if (latest == nullptr) return nullptr;
    Block* const block = empty(*latest);
    if (block == nullptr || block->bytes == bytes) return block;
    keep(block);  // another thread was faster
    return nullptr;
  }

  /// Keeps a block, at the cost of those that have been kept for longest. Frees a result: `context` is
  /// its block.
  static void release(void* context) {
    auto* const block = static_cast<Block*>(context);
    if (block->bytes > kKeptResults) {
      discard(block);
      return;
    }
    while (kept_.load(std::memory_order_relaxed) + block->bytes > kKeptResults) {
      Block* const old = empty(oldest());
      if (old == nullptr) break;  // other threads empty and fill at the same time
      discard(old);
    }
    keep(block);
  }

  /// Into an empty slot, or in place of the oldest block.
  static void keep(Block* block) {
    kept_.fetch_add(block->bytes, std::memory_order_relaxed);
    for (Slot& slot : slots_) {
      Block* nothing = nullptr;
      if (slot.block.load(std::memory_order_relaxed) != nullptr) continue;
      label(slot, block->bytes);
      if (slot.block.compare_exchange_strong(nothing, block, std::memory_order_release)) return;
    }
    Slot& slot = oldest();
    label(slot, block->bytes);
    Block* const old = slot.block.exchange(block, std::memory_order_acq_rel);
    if (old == nullptr) return;
    kept_.fetch_sub(old->bytes, std::memory_order_relaxed);
    discard(old);
  }

  /// Takes what is in a slot.
  static Block* empty(Slot& slot) {
    Block* const block = slot.block.exchange(nullptr, std::memory_order_acquire);
    if (block != nullptr) kept_.fetch_sub(block->bytes, std::memory_order_relaxed);
    return block;
  }

  static Slot& oldest() {
    Slot* result = slots_.data();
    for (Slot& slot : slots_) {
      const bool filled = slot.block.load(std::memory_order_relaxed) != nullptr;
      const bool instead = result->block.load(std::memory_order_relaxed) == nullptr;
      if (filled && (instead || is_older(slot, *result))) result = &slot;
    }
    return *result;
  }

  static bool is_older(const Slot& a, const Slot& b) {
    return a.since.load(std::memory_order_relaxed) < b.since.load(std::memory_order_relaxed);
  }

  static void label(Slot& slot, size_t bytes) {
    slot.bytes.store(bytes, std::memory_order_relaxed);
    slot.since.store(clock_.fetch_add(1, std::memory_order_relaxed), std::memory_order_relaxed);
  }

  static void discard(Block* block) {
    const c10::DeleterFnPtr free = block->free;
    free(block);
  }

  static inline std::array<Slot, kSlots> slots_{};
  static inline std::atomic<size_t> kept_{0}, clock_{0};
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
