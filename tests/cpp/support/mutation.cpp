#include "support/mutation.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "support/races.hpp"

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

/// How a run on a grid went.
struct Run {
  std::vector<Barrier> barriers;  ///< that were waited at
  const char* fault = nullptr;    ///< what is not as in the serial run
};

Run run(const TeamCase& test, const std::vector<double>& expected, const Schedule& schedule) {
  FiberGrid grid(schedule.lanes, schedule.order, schedule.seed, schedule.staged);
  try {
    const std::vector<double> actual = test.on_grid(grid);
    return {grid.barriers(), same_bits(actual, expected) ? nullptr : "values"};
  } catch (const Divergence&) {
    return {{}, "divergence"};
  } catch (const Race&) {
    return {{}, "race"};
  }
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

std::vector<std::string> BarrierReport::unreached_places(const std::string& folder) const {
  std::set<std::string> reached;
  for (const Barrier& barrier : barriers) reached.insert(barrier.place());
  const std::regex waits("(sync|max_all|add_all|sums)<Site::");
  std::vector<std::string> places;
  int found = 0;
  const auto sources = std::filesystem::path(__FILE__).parent_path() / "../../../csrc" / folder;
  for (const auto& entry : std::filesystem::directory_iterator(sources)) {
    if (entry.path().extension() != ".hpp") continue;
    std::ifstream file(entry.path());
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      if (!std::regex_search(line, waits)) continue;
      const std::string place = entry.path().filename().string() + ":" + std::to_string(number);
      if (reached.count(place) == 0) places.push_back(place);
      ++found;
    }
  }
  if (found == 0) throw std::logic_error("no barrier in " + sources.string());
  return places;
}

std::vector<std::string> BarrierReport::unnoticed_places() const {
  std::vector<std::string> places;
  for (const Barrier& barrier : unnoticed()) places.push_back(barrier.place());
  return places;
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
      const Run whole = run(cases[c], expected[c], kSchedules[s]);
      if (whole.fault != nullptr)
        throw std::logic_error(cases[c].name + " differs from its serial run: " + whole.fault);
      waited[c][s] = whole.barriers;
      for (const Barrier& barrier : whole.barriers)
        if (asked(barrier) && !contains(report.barriers, barrier))
          report.barriers.push_back(barrier);
    }
  }
  const auto run_without = [&](const Barrier& barrier, size_t c, size_t s) {
    const DisabledBarrier mutation(barrier);
    const ExpectedRaces races;
    return run(cases[c], expected[c], kSchedules[s]).fault;
  };
  for (const Barrier& barrier : report.barriers) {
    std::string missed_by;
    for (size_t c = 0; c < cases.size() && missed_by.empty(); ++c)
      for (size_t s = 0; s < kCount && missed_by.empty(); ++s) {
        if (!contains(waited[c][s], barrier)) continue;
        const char* fault = run_without(barrier, c, s);
        if (fault == nullptr) continue;
        missed_by = cases[c].name + ": " + fault;
        if (run(cases[c], expected[c], kSchedules[s]).fault != nullptr)
          throw std::logic_error(missed_by + " stays when " + barrier.place() + " is on again");
      }
    report.missed_by.push_back(missed_by);
  }
  return report;
}

}  // namespace torchqp::support
