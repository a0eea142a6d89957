#include "support/mutation.hpp"

#include <algorithm>
#include <array>
#include <iomanip>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace torchqp::support {
namespace {

struct Schedule {
  int lanes;
  LaneOrder order;
  uint64_t seed;
  bool staged;
};
constexpr Schedule kSchedules[] = {
    {3, LaneOrder::kForward, 0, false},   {3, LaneOrder::kReverse, 0, false},
    {7, LaneOrder::kForward, 0, false},   {7, LaneOrder::kReverse, 0, false},
    {7, LaneOrder::kShuffled, 1, false},  {7, LaneOrder::kShuffled, 2, false},
    {32, LaneOrder::kShuffled, 3, false}, {3, LaneOrder::kForward, 0, true},
    {3, LaneOrder::kReverse, 0, true},    {7, LaneOrder::kShuffled, 1, true},
    {7, LaneOrder::kShuffled, 2, true},   {32, LaneOrder::kShuffled, 3, true}};

bool contains(const std::vector<Barrier>& barriers, const Barrier& barrier) {
  return std::find(barriers.begin(), barriers.end(), barrier) != barriers.end();
}

/// The barriers that the case waits at on this schedule, or nothing when it does not run there as
/// it does serially.
std::optional<std::vector<Barrier>> run(const TeamCase& test, const std::vector<double>& expected,
                                        const Schedule& schedule) {
  FiberGrid grid(schedule.lanes, schedule.order, schedule.seed, schedule.staged);
  std::vector<double> actual;
  try {
    actual = test.on_grid(grid);
  } catch (const Divergence&) {
    return std::nullopt;
  }
  if (!same_bits(actual, expected)) return std::nullopt;
  return grid.barriers();
}

/// The enumerator's name, as the compiler spells it.
template <Site kSite>
std::string_view name_of() {
  std::string_view name = __PRETTY_FUNCTION__;
  name = name.substr(name.find("Site::") + 6);
  return name.substr(0, name.find_first_of(";]"));
}
template <int... kSites>
std::string_view name_of(Site site, std::integer_sequence<int, kSites...>) {
  const std::array<std::string_view, sizeof...(kSites)> names{name_of<Site(kSites)>()...};
  return names.at(static_cast<size_t>(site));
}

}  // namespace

std::vector<Barrier> BarrierReport::unnoticed() const {
  std::vector<Barrier> result;
  for (size_t b = 0; b < barriers.size(); ++b)
    if (missed_by[b].empty()) result.push_back(barriers[b]);
  return result;
}

std::vector<std::string> BarrierReport::unnoticed_places() const {
  std::vector<std::string> places;
  for (const Barrier& barrier : unnoticed()) places.push_back(barrier.place());
  return places;
}

std::vector<int> BarrierReport::unnoticed_sites() const {
  std::map<int, int> noticed;
  for (const Barrier& barrier : barriers) ++noticed[static_cast<int>(barrier.site)];
  for (const Barrier& barrier : unnoticed()) --noticed[static_cast<int>(barrier.site)];
  std::vector<int> sites;
  for (const auto& [site, count] : noticed)
    if (count == 0) sites.push_back(site);
  return sites;
}

std::string BarrierReport::table() const {
  std::vector<size_t> order(barriers.size());
  for (size_t b = 0; b < order.size(); ++b) order[b] = b;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const std::string_view left = barriers[a].file, right = barriers[b].file;
    return left != right ? left < right : barriers[a].line < barriers[b].line;
  });
  constexpr auto kSites = std::make_integer_sequence<int, static_cast<int>(Site::kCount)>();
  std::ostringstream out;
  for (size_t b : order)
    out << std::left << std::setw(26) << barriers[b].place() << std::setw(24)
        << name_of(barriers[b].site, kSites)
        << (missed_by[b].empty() ? "not missed" : "missed by " + missed_by[b]) << '\n';
  return out.str();
}

BarrierReport switch_off_barriers(const std::vector<TeamCase>& cases,
                                  const std::function<bool(const Barrier&)>& asked) {
  constexpr size_t kCount = std::size(kSchedules);
  BarrierReport report;
  std::vector<std::vector<double>> expected;
  std::vector<std::array<std::vector<Barrier>, kCount>> waited(cases.size());
  for (size_t c = 0; c < cases.size(); ++c) {
    expected.push_back(cases[c].serial());
    for (size_t s = 0; s < kCount; ++s) {
      const auto barriers = run(cases[c], expected[c], kSchedules[s]);
      if (!barriers) throw std::logic_error(cases[c].name + " differs from its serial run");
      waited[c][s] = *barriers;
      for (const Barrier& barrier : *barriers)
        if (asked(barrier) && !contains(report.barriers, barrier))
          report.barriers.push_back(barrier);
    }
  }
  for (const Barrier& barrier : report.barriers) {
    const DisabledBarrier mutation(barrier);
    std::string missed_by;
    for (size_t c = 0; c < cases.size() && missed_by.empty(); ++c)
      for (size_t s = 0; s < kCount && missed_by.empty(); ++s)
        if (contains(waited[c][s], barrier) && !run(cases[c], expected[c], kSchedules[s]))
          missed_by = cases[c].name;
    report.missed_by.push_back(missed_by);
  }
  return report;
}

}  // namespace torchqp::support
