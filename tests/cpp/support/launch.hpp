#pragma once
// Ways to run one body: by the serial team, or by emulated teams of several sizes and lane orders.

#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/team.hpp"
#include "support/fiber_team.hpp"

namespace torchqp::support {

/// launch(body) calls body(team) with the product path's team.
struct SerialLaunch {
  using Team = SerialTeam;
  template <class Body>
  void operator()(Body&& body) const {
    body(SerialTeam{});
  }
};

/// launch(body) calls body(team) on every lane of a grid.
struct FiberLaunch {
  using Team = FiberTeam;
  FiberGrid& grid;
  template <class Body>
  void operator()(Body&& body) const {
    grid.run(body);
  }
};

/// Calls f(launch, description) for teams of so many lanes in forward, reverse and two shuffled
/// orders, staged and not.
template <class Sizes, class F>
void for_each_fiber_launch(const Sizes& sizes, F f) {
  struct Order {
    LaneOrder order;
    uint64_t seed;
    const char* name;
  };
  const Order orders[] = {{LaneOrder::kForward, 0, "forward"},
                          {LaneOrder::kReverse, 0, "reverse"},
                          {LaneOrder::kShuffled, 1, "shuffled (seed 1)"},
                          {LaneOrder::kShuffled, 2, "shuffled (seed 2)"}};
  for (int lanes : sizes)
    for (const Order& order : orders)
      for (bool staged : {false, true}) {
        FiberGrid grid(lanes, order.order, order.seed, staged);
        f(FiberLaunch{grid},
          std::to_string(lanes) + " lanes, " + order.name + (staged ? ", staged" : ""));
      }
}

/// The same for a few sizes: odd ones, which no power-of-two assumption survives, and a warp.
template <class F>
void for_each_fiber_launch(F f) {
  for_each_fiber_launch(std::initializer_list<int>{3, 7, 32}, f);
}

}  // namespace torchqp::support
