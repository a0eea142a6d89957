#pragma once
// Mutation of barriers: every barrier that a routine waits at is switched off in turn, and some run
// in a permuted order of lanes must then diverge or give other bits. A barrier that nobody misses
// is either redundant or not tested.

#include <functional>
#include <string>
#include <vector>

#include "support/launch.hpp"

namespace torchqp::support {

/// One computation over a team: its outputs, one after the other.
struct TeamCase {
  std::string name;
  std::function<std::vector<double>()> serial;
  std::function<std::vector<double>(FiberGrid&)> on_grid;
};

/// compute(launch) -> std::vector<double>, for SerialLaunch and FiberLaunch.
template <class Compute>
TeamCase team_case(std::string name, Compute compute) {
  return {std::move(name), [compute] { return compute(SerialLaunch{}); },
          [compute](FiberGrid& grid) { return compute(FiberLaunch{grid}); }};
}

struct BarrierReport {
  std::vector<Barrier> barriers;   ///< all that were waited at
  std::vector<Barrier> unnoticed;  ///< those whose absence changed nothing

  /// "file:line" of each unnoticed barrier.
  std::vector<std::string> unnoticed_places() const;
  /// Names of barriers (Site) that were waited at and of which no one was noticed.
  std::vector<int> unnoticed_sites() const;
};

/// Runs the cases whole, then without each barrier. Throws std::logic_error when a whole run
/// differs from the serial one.
BarrierReport switch_off_barriers(const std::vector<TeamCase>& cases);

}  // namespace torchqp::support
