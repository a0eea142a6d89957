#include "support/mutation.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

#include "support/packed.hpp"

namespace torchqp::support {
namespace {

struct Schedule {
  int lanes;
  LaneOrder order;
  uint64_t seed;
};
constexpr Schedule kSchedules[] = {{3, LaneOrder::kForward, 0},  {3, LaneOrder::kReverse, 0},
                                   {7, LaneOrder::kForward, 0},  {7, LaneOrder::kReverse, 0},
                                   {7, LaneOrder::kShuffled, 1}, {7, LaneOrder::kShuffled, 2},
                                   {32, LaneOrder::kShuffled, 3}};

/// True when the case runs on this schedule as it does serially.
bool passes(const TeamCase& test, const std::vector<double>& expected, const Schedule& schedule,
            std::vector<Barrier>* barriers = nullptr) {
  FiberGrid grid(schedule.lanes, schedule.order, schedule.seed);
  std::vector<double> actual;
  try {
    actual = test.on_grid(grid);
  } catch (const Divergence&) {
    return false;
  }
  if (barriers != nullptr) *barriers = grid.barriers();
  return same_bits(actual, expected);
}

}  // namespace

std::vector<std::string> BarrierReport::unnoticed_places() const {
  std::vector<std::string> places;
  for (const Barrier& barrier : unnoticed) places.push_back(barrier.place());
  return places;
}

std::vector<int> BarrierReport::unnoticed_sites() const {
  std::map<int, int> noticed;
  for (const Barrier& barrier : barriers) ++noticed[static_cast<int>(barrier.site)];
  for (const Barrier& barrier : unnoticed) --noticed[static_cast<int>(barrier.site)];
  std::vector<int> sites;
  for (const auto& [site, count] : noticed)
    if (count == 0) sites.push_back(site);
  return sites;
}

BarrierReport switch_off_barriers(const std::vector<TeamCase>& cases) {
  BarrierReport report;
  std::vector<std::vector<double>> expected;
  std::vector<std::vector<Barrier>> barriers_of(cases.size());
  for (size_t c = 0; c < cases.size(); ++c) {
    expected.push_back(cases[c].serial());
    for (const Schedule& schedule : kSchedules)
      if (!passes(cases[c], expected[c], schedule, &barriers_of[c]))
        throw std::logic_error(cases[c].name + " differs from its serial run");
    for (const Barrier& barrier : barriers_of[c])
      if (std::find(report.barriers.begin(), report.barriers.end(), barrier) ==
          report.barriers.end())
        report.barriers.push_back(barrier);
  }
  for (const Barrier& barrier : report.barriers) {
    const DisabledBarrier mutation(barrier);
    bool noticed = false;
    for (size_t c = 0; c < cases.size() && !noticed; ++c) {
      const std::vector<Barrier>& known = barriers_of[c];
      if (std::find(known.begin(), known.end(), barrier) == known.end()) continue;
      for (const Schedule& schedule : kSchedules)
        noticed = noticed || !passes(cases[c], expected[c], schedule);
    }
    if (!noticed) report.unnoticed.push_back(barrier);
  }
  return report;
}

}  // namespace torchqp::support
