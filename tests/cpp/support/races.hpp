#pragma once
// Data races between the lanes of a grid, as ThreadSanitizer reports them. A program without it
// sees none.

namespace torchqp::support {

/// Races that were reported so far.
int races();

/// While it lives, races are expected: they are counted, but neither printed nor a failure of the
/// program.
class ExpectedRaces {
 public:
  ExpectedRaces();
  ~ExpectedRaces();
  ExpectedRaces(const ExpectedRaces&) = delete;
  ExpectedRaces& operator=(const ExpectedRaces&) = delete;
};

}  // namespace torchqp::support
