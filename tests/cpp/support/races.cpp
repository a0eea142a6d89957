// Compile this file without -fsanitize=thread: what it counts is written on any lane.

#include "support/races.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>

namespace {
int reported = 0, unexpected = 0;
int nowhere = -1;  // where reports of expected races go, while they are
}  // namespace

// The hooks of ThreadSanitizer, which nobody calls without it, and what it offers: weak, null
// without it. It looks for hooks among the symbols that the program exports.
#pragma GCC visibility push(default)
extern "C" {
__attribute__((weak)) void __sanitizer_set_report_fd(void* descriptor);
__attribute__((weak)) void* __tsan_get_current_fiber();
void __tsan_on_report(void*);
int __tsan_on_finalize(int failed);
const char* __tsan_default_options();

void __tsan_on_report(void*) {
  ++reported;
  if (nowhere < 0) ++unexpected;
}

int __tsan_on_finalize(int failed) {
  return unexpected > 0 ? failed : 0;
}

/// A race counts each time, not only the first time that these two lines meet.
const char* __tsan_default_options() {
  return "suppress_equal_stacks=0:suppress_equal_addresses=0";
}
}  // extern "C"
#pragma GCC visibility pop

namespace torchqp::support {
namespace {

void report_to(int descriptor) {
  if (__tsan_get_current_fiber)  // other sanitizers have more to say
    __sanitizer_set_report_fd(reinterpret_cast<void*>(static_cast<intptr_t>(descriptor)));
}

}  // namespace

int races() {
  return reported;
}

ExpectedRaces::ExpectedRaces() {
  nowhere = open("/dev/null", O_WRONLY);
  report_to(nowhere);
}
ExpectedRaces::~ExpectedRaces() {
  report_to(STDERR_FILENO);
  close(nowhere);
  nowhere = -1;
}

}  // namespace torchqp::support
