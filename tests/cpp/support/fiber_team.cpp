// The scheduler of fiber_team.hpp. Compile this file without -fsanitize=thread: its own bookkeeping
// is shared between the fibers without any barrier and would be reported instead of the code under
// test.

#include "support/fiber_team.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "support/races.hpp"

#if !defined(__x86_64__) && !defined(TORCHQP_FIBER_UCONTEXT)
#define TORCHQP_FIBER_UCONTEXT
#endif
#ifdef TORCHQP_FIBER_UCONTEXT
#include <ucontext.h>
#endif

// The sanitizers' fiber interface. Weak: null in a program without that sanitizer, so that this
// file needs no flag of its own.
extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* object);
__attribute__((weak)) void __tsan_release(void* object);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake, const void* stack, size_t n);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake, const void** stack,
                                                           size_t* n);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* begin, size_t size);
}

// Arithmetic that wraps around on purpose.
#if defined(__clang__)
#define TORCHQP_WRAPS __attribute__((no_sanitize("integer")))
#else
#define TORCHQP_WRAPS
#endif

namespace torchqp::support {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kStageBytes = 128 * 1024;
constexpr unsigned kTsanNoSync = 1;  // a switch alone orders nothing: only barriers do

constexpr int kMaxDisabled = 64;
Barrier disabled[kMaxDisabled];  // off in every grid
int disabled_count = 0;

struct Lane;
thread_local Lane* starting = nullptr;  // the lane whose first switch is under way

#ifdef TORCHQP_FIBER_UCONTEXT

struct Context {
  ucontext_t registers;
};

void switch_context(Context& from, Context& to) {
  swapcontext(&from.registers, &to.registers);
}

void prepare_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

#else

struct Context {
  void* stack_pointer = nullptr;
};

// Pushes the callee-saved registers, changes stacks, pops the other's.
extern "C" void torchqp_fiber_switch(void** save, void* load);
asm(R"(
.text
.globl torchqp_fiber_switch
.hidden torchqp_fiber_switch
.type torchqp_fiber_switch,@function
torchqp_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size torchqp_fiber_switch, .-torchqp_fiber_switch
.section .note.GNU-stack,"",@progbits
.text
)");

void switch_context(Context& from, Context& to) {
  torchqp_fiber_switch(&from.stack_pointer, to.stack_pointer);
}

void prepare_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  const uintptr_t end = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{63};
  void** top = reinterpret_cast<void**>(end);
  *--top = nullptr;  // the return address of `entry`: none, which ends an unwinder's walk
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  context.stack_pointer = top;
}

#endif

enum class State { kWaiting, kReturned };

struct Lane {
  FiberGrid* grid = nullptr;
  void* scheduler = nullptr;  // FiberGrid::Impl
  Context context;
  char* mapping = nullptr;  // guard page, then the stack
  void* tsan_fiber = nullptr;
  void* asan_fake_stack = nullptr;
  int index = 0;
  Barrier barrier{};  // where it waits
  unsigned barriers_passed = 0;
  unsigned exchanges = 0;
  State state = State::kReturned;
};

size_t page_bytes() {
  return static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

char* stack_of(const Lane& lane) {
  return lane.mapping + page_bytes();
}

void map_stack(Lane& lane) {
  void* mapping = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  lane.mapping = static_cast<char*>(mapping);
  if (mprotect(lane.mapping, page_bytes(), PROT_NONE) != 0) throw std::bad_alloc();
  if (__tsan_create_fiber) lane.tsan_fiber = __tsan_create_fiber(0);
}

void unmap_stack(Lane& lane) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(stack_of(lane), kStackBytes);
  munmap(lane.mapping, page_bytes() + kStackBytes);
  if (__tsan_destroy_fiber) __tsan_destroy_fiber(lane.tsan_fiber);
}

/// The state that a seed stands for.
TORCHQP_WRAPS uint64_t scrambled(uint64_t seed) {
  return seed * 0x9E3779B97F4A7C15ULL + 0xD1B54A32D192ED03ULL;
}

}  // namespace

struct FiberGrid::Impl {
  std::unique_ptr<Lane[]> lanes;
  std::unique_ptr<int[]> order;
  unsigned char* slots = nullptr;  // two sets, one after the other
  int slot_count = 0;              // in a set
  unsigned char* stage = nullptr;  // none: the team does not stage
  LaneOrder lane_order = LaneOrder::kForward;
  uint64_t random = 0;
  struct Visits {
    Barrier barrier;
    int64_t count;
  };
  std::vector<Visits>
      visits;  // its type is this file's own: no instrumented copy of its code exists

  void (*body)(void*, const FiberTeam&) = nullptr;
  void* context = nullptr;
  std::exception_ptr error;
  int races_before = 0;

  Context main;
  void* main_tsan_fiber = nullptr;
  void* main_fake_stack = nullptr;
  const void* main_stack = nullptr;
  size_t main_stack_bytes = 0;

  // What ThreadSanitizer sees of a barrier: each lane releases before it waits and acquires after.
  // Two alternating objects, because a lane that is already in the next phase must not publish that
  // phase to one that still leaves this barrier.
  char launch_object, barrier_objects[2], finish_object;

  void enter(Lane& lane) {
    starting = &lane;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(lane.tsan_fiber, kTsanNoSync);
    if (__sanitizer_start_switch_fiber)
      __sanitizer_start_switch_fiber(&main_fake_stack, stack_of(lane), kStackBytes);
    switch_context(main, lane.context);
    if (__sanitizer_finish_switch_fiber)
      __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
  }

  void leave(Lane& lane) {
    const bool for_good = lane.state == State::kReturned;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(main_tsan_fiber, kTsanNoSync);
    if (__sanitizer_start_switch_fiber)
      __sanitizer_start_switch_fiber(for_good ? nullptr : &lane.asan_fake_stack, main_stack,
                                     main_stack_bytes);
    switch_context(lane.context, main);
    if (__sanitizer_finish_switch_fiber)
      __sanitizer_finish_switch_fiber(lane.asan_fake_stack, &main_stack, &main_stack_bytes);
  }

  /// xorshift64*: a standard engine's template code could come from an instrumented file.
  TORCHQP_WRAPS uint64_t next_random() {
    random ^= random >> 12;
    random ^= random << 25;
    random ^= random >> 27;
    return random * 0x2545F4914F6CDD1DULL;
  }

  void permute(int n) {
    if (lane_order != LaneOrder::kShuffled) return;
    for (int i = n - 1; i > 0; --i) {
      const int j = static_cast<int>((next_random() >> 33) % (i + 1));
      const int kept = order[i];
      order[i] = order[j];
      order[j] = kept;
    }
  }

  /// Where every lane starts: runs the body, then hands back for good.
  static void lane_main() {
    Lane& lane = *starting;
    Impl& grid = *static_cast<Impl*>(lane.scheduler);
    if (__sanitizer_finish_switch_fiber)
      __sanitizer_finish_switch_fiber(nullptr, &grid.main_stack, &grid.main_stack_bytes);
    if (__tsan_acquire) __tsan_acquire(&grid.launch_object);
    try {
      grid.body(grid.context, FiberTeam(lane.grid, lane.index, lane.grid->lanes()));
    } catch (...) {
      if (!grid.error) grid.error = std::current_exception();
    }
    if (__tsan_release) __tsan_release(&grid.finish_object);
    lane.state = State::kReturned;
    grid.leave(lane);
    std::abort();  // a lane that returned is never entered again
  }

  void stop_after_race() const {
    if (races() != races_before) throw Race("lanes race");
  }

  void count_visit(const Barrier& barrier) {
    for (Visits& known : visits)
      if (known.barrier == barrier) {
        ++known.count;
        return;
      }
    visits.push_back({barrier, 1});
  }

  /// True when both lanes have returned or wait at the same barrier.
  static bool together(const Lane& a, const Lane& b) {
    return a.state == b.state && (a.state == State::kReturned || a.barrier == b.barrier);
  }

  std::string report(int n) const {
    std::string text = "lanes diverge:";
    for (int first = 0; first < n;) {
      int last = first;
      const Lane& lane = lanes[first];
      while (last + 1 < n && together(lane, lanes[last + 1])) ++last;
      text += " [" + std::to_string(first) + ".." + std::to_string(last) + "] ";
      text +=
          lane.state == State::kReturned ? "returned;" : "wait at " + lane.barrier.place() + ";";
      first = last + 1;
    }
    return text;
  }
};

FiberGrid::FiberGrid(int lanes, LaneOrder order, uint64_t seed, bool staged)
    : lanes_(lanes), impl_(new Impl) {
  if (lanes < 1) throw std::invalid_argument("FiberGrid: expected at least one lane");
  impl_->lanes.reset(new Lane[lanes]);
  impl_->order.reset(new int[lanes]);
  impl_->lane_order = order;
  impl_->slot_count = lanes > kSumParts ? lanes : kSumParts;
  const size_t slot_bytes = 2 * size_t(impl_->slot_count) * FiberTeam::kSlotBytes;
  impl_->slots = static_cast<unsigned char*>(std::aligned_alloc(64, slot_bytes));
  if (impl_->slots == nullptr) throw std::bad_alloc();
  if (staged) {
    impl_->stage = static_cast<unsigned char*>(std::aligned_alloc(64, kStageBytes));
    if (impl_->stage == nullptr) throw std::bad_alloc();
    std::memset(impl_->stage, 0xFF, kStageBytes);
  }
  impl_->random = scrambled(seed);
  for (int i = 0; i < lanes; ++i) {
    Lane& lane = impl_->lanes[i];
    lane.grid = this;
    lane.scheduler = impl_.get();
    lane.index = i;
    map_stack(lane);
    impl_->order[i] = order == LaneOrder::kReverse ? lanes - 1 - i : i;
  }
}

FiberGrid::~FiberGrid() {
  for (int i = 0; i < lanes_; ++i) unmap_stack(impl_->lanes[i]);
  std::free(impl_->slots);
  std::free(impl_->stage);
}

int64_t FiberGrid::visits(Site site) const {
  int64_t sum = 0;
  for (const Impl::Visits& known : impl_->visits)
    if (known.barrier.site == site) sum += known.count;
  return sum;
}

std::vector<Barrier> FiberGrid::barriers() const {
  std::vector<Barrier> result;
  for (const Impl::Visits& known : impl_->visits) result.push_back(known.barrier);
  return result;
}

void FiberGrid::run_lanes(void (*body)(void*, const FiberTeam&), void* context) {
  Impl& grid = *impl_;
  grid.body = body;
  grid.context = context;
  grid.error = nullptr;
  grid.races_before = races();
  if (__tsan_get_current_fiber) grid.main_tsan_fiber = __tsan_get_current_fiber();
  std::memset(grid.slots, 0xFF, 2 * size_t(grid.slot_count) * FiberTeam::kSlotBytes);
  if (__tsan_release) __tsan_release(&grid.launch_object);
  for (int i = 0; i < lanes_; ++i) {
    Lane& lane = grid.lanes[i];
    lane.state = State::kWaiting;
    lane.barriers_passed = lane.exchanges = 0;
    prepare_context(lane.context, stack_of(lane), kStackBytes, Impl::lane_main);
  }

  for (;;) {
    grid.permute(lanes_);
    for (int i = 0; i < lanes_; ++i) grid.enter(grid.lanes[grid.order[i]]);

    const Lane& first = grid.lanes[0];
    bool together = true;
    for (int i = 1; i < lanes_; ++i) together = together && Impl::together(first, grid.lanes[i]);
    if (!together) {
      if (__tsan_acquire) __tsan_acquire(&grid.finish_object);
      const std::string message = grid.report(lanes_);
      // What an abandoned lane did came before all that follows: switches that do order.
      for (int i = 0; i < lanes_ && __tsan_switch_to_fiber; ++i) {
        __tsan_switch_to_fiber(grid.lanes[i].tsan_fiber, 0);
        __tsan_switch_to_fiber(grid.main_tsan_fiber, 0);
      }
      for (int i = 0; i < lanes_; ++i) {  // a stack that was abandoned half way is not used again
        unmap_stack(grid.lanes[i]);
        map_stack(grid.lanes[i]);
      }
      if (grid.error) std::rethrow_exception(grid.error);
      throw Divergence(message);
    }
    if (first.state == State::kReturned) break;
    grid.count_visit(first.barrier);
  }
  if (__tsan_acquire) __tsan_acquire(&grid.finish_object);
  if (grid.error) std::rethrow_exception(grid.error);
  grid.stop_after_race();
}

void FiberTeam::wait(const Barrier& barrier) const {
  FiberGrid::Impl& grid = *grid_->impl_;
  grid.stop_after_race();
  for (int i = 0; i < disabled_count; ++i)
    if (barrier == disabled[i]) return;
  Lane& lane = grid.lanes[lane_];
  lane.barrier = barrier;
  char* object = &grid.barrier_objects[lane.barriers_passed++ & 1];
  if (__tsan_release) __tsan_release(object);
  grid.leave(lane);
  if (__tsan_acquire) __tsan_acquire(object);
  grid.stop_after_race();
}

void* FiberTeam::stage_memory(size_t bytes) const {
  FiberGrid::Impl& grid = *grid_->impl_;
  if (bytes > kStageBytes) std::abort();
  return grid.stage;
}

void* FiberTeam::slot_at(int index) const {
  const FiberGrid::Impl& grid = *grid_->impl_;
  const int set = grid.lanes[lane_].exchanges & 1;
  return grid.slots + (size_t(set) * grid.slot_count + index) * kSlotBytes;
}

void FiberTeam::end_exchange() const {
  FiberGrid::Impl& grid = *grid_->impl_;
  ++grid.lanes[lane_].exchanges;
  for (int i = lane_; i < grid.slot_count; i += size_) std::memset(slot_at(i), 0xFF, kSlotBytes);
}

bool Barrier::operator==(const Barrier& other) const {
  return site == other.site && line == other.line &&
         (file == other.file || std::strcmp(file, other.file) == 0);
}

std::string Barrier::place() const {
  const char* slash = std::strrchr(file, '/');
  return std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(line);
}

DisabledBarrier::DisabledBarrier(const Barrier& barrier) {
  if (disabled_count == kMaxDisabled) throw std::length_error("DisabledBarrier: too many at once");
  disabled[disabled_count++] = barrier;
}
DisabledBarrier::~DisabledBarrier() {
  --disabled_count;
}

}  // namespace torchqp::support
