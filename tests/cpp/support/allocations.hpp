#pragma once
// Counts calls of operator new in the whole program, to prove that a solve makes none.

#include <cstdint>

namespace torchqp::support {

/// Calls of operator new (all forms) so far, on all threads; none are counted under the thread
/// sanitizer.
int64_t allocations();

}  // namespace torchqp::support
