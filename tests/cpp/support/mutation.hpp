#pragma once
// Mutation of barriers: every barrier that a routine waits at is switched off in turn, and some run
// in a permuted order of lanes must then diverge, give other bits or, under ThreadSanitizer, race. A
// barrier that nobody misses is either redundant or not tested.

#include <functional>
#include <string>
#include <vector>

#include "support/team_case.hpp"

namespace torchqp::support {

struct BarrierReport {
  std::vector<Barrier> barriers;  ///< all that were waited at, and asked for
  std::vector<std::string>
      missed_by;  ///< of each, the first case that its absence changes and how, or ""

  std::vector<Barrier> unnoticed() const;
  /// "file:line" of each barrier in the headers of this folder of csrc that was not waited at. Throws
  /// std::logic_error where they have none.
  std::vector<std::string> unreached_places(const std::string& folder) const;
  /// "file:line" of each unnoticed barrier.
  std::vector<std::string> unnoticed_places() const;
  /// A line for each barrier: place, name, and which case misses it, by what.
  std::string table() const;
};

/// Runs the cases whole, then without each barrier that `asked` names. Throws std::logic_error when
/// a whole run differs from the serial one.
BarrierReport switch_off_barriers(
    const std::vector<TeamCase>& cases,
    const std::function<bool(const Barrier&)>& asked = [](const Barrier&) { return true; });

}  // namespace torchqp::support
