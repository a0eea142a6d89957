#pragma once
// Mutation of barriers: every barrier that a routine waits at is switched off in turn, and some run
// in a permuted order of lanes must then diverge or give other bits. A barrier that nobody misses
// is either redundant or not tested.

#include <functional>
#include <string>
#include <vector>

#include "support/team_case.hpp"

namespace torchqp::support {

struct BarrierReport {
  std::vector<Barrier> barriers;       ///< all that were waited at, and asked for
  std::vector<std::string> missed_by;  ///< of each, the first case that its absence changes, or ""

  std::vector<Barrier> unnoticed() const;
  /// "file:line" of each unnoticed barrier.
  std::vector<std::string> unnoticed_places() const;
  /// Names of barriers (Site) that were waited at and of which no one was noticed.
  std::vector<int> unnoticed_sites() const;
  /// A line for each barrier: place, name, and which case misses it.
  std::string table() const;
};

/// Runs the cases whole, then without each barrier that `asked` names. Throws std::logic_error when
/// a whole run differs from the serial one.
BarrierReport switch_off_barriers(
    const std::vector<TeamCase>& cases,
    const std::function<bool(const Barrier&)>& asked = [](const Barrier&) { return true; });

}  // namespace torchqp::support
