// Every barrier of a whole solve and of its derivative is needed, and needed by a test: see
// support/mutation.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <set>
#include <string>

#include "qp/run_adjoint.hpp"
#include "support/mutation.hpp"

namespace torchqp::qp {
namespace {

class WholeSolves {
 public:
  std::vector<support::TeamCase> cases;

  template <class T>
  void add_solve(const std::string& name, const support::QpBatch<T>& batch, const HowToSolve& how) {
    cases.push_back(support::team_case(
        name, [=](const auto& launch) { return run_solver<T>(launch, batch, how)[0]; }));
  }

  void add_adjoint(const std::string& name, const support::QpBatch<double>& batch,
                   const AdjointInput<double>& input) {
    cases.push_back(support::team_case(name + ", adjoint", [=](const auto& launch) {
      return run_adjoint<double>(launch, batch, input)[0];
    }));
  }

  /// Solved cold, loosely, cut short and warm; its derivative, that where every side holds, and that
  /// of a problem that was not solved.
  void add_family(const support::Family& family) {
    const std::string name = family.name;
    auto batch = support::random_batch<double>(family, 1, 21);
    const HowToSolve cold{default_settings<double>(), true};
    HowToSolve cut = cold, loose = cold, warm = cold, far = cold;
    cut.settings.max_iter = 3;
    loose.settings.eps_abs = loose.settings.eps_rel = 0.3;  // the polish revises its active set
    warm.warm = far.warm = true;
    far.settings.near_start = false;
    add_solve(name, batch, cold);
    add_solve(name + ", cut short", batch, cut);
    add_solve(name + ", loose", batch, loose);
    const auto solved = run_solver<double>(support::SerialLaunch{}, batch, cold);
    auto input = adjoint_input<double>(batch.dims, solved, 5);
    add_adjoint(name, batch, input);
    std::fill(input.active[0].begin(), input.active[0].end(), 1.0);
    add_adjoint(name + ", held", batch, input);
    input.live[0] = false;
    add_adjoint(name + ", failed", batch, input);
    const double* z = solved[0].data() + kZ;
    for (int i = 0; i < family.n; ++i) batch.z0.push_back(z[i] + 1e-2);
    for (int i = 0; i < family.p; ++i) batch.nu0.push_back(z[family.n + i]);
    for (int i = 0; i < family.m; ++i) batch.lam0.push_back(z[family.n + family.p + i]);
    add_solve(name + ", warm", batch, warm);
    if (name != "rows") return;
    // A warm start that lacks a row that holds.
    *std::max_element(batch.lam0.begin(), batch.lam0.end()) = 0;
    add_solve(name + ", nearly right", batch, warm);
    add_solve(name + ", far", batch, far);
  }

  /// Pivoting stalls on these, so that only the worst rows are exchanged.
  void add_stalled() {
    const support::Family stalled = {"stalled", 6,     6,     0,     false, true,
                                     false,     false, false, false, 0,     0};
    for (unsigned seed : {2u, 18u, 32u})
      add_solve("stalled", support::random_batch<double>(stalled, 1, seed),
                {default_settings<double>(), true});
  }

  void add_failures() {
    for (bool bounds : {false, true}) {
      const auto troubled = support::troubled_batch<double>(bounds);
      for (int64_t member : {1, 2, 4})
        add_solve("troubled member " + std::to_string(member), troubled.batch.pick({member}),
                  {default_settings<double>(), true});
    }
  }

  /// Of two equalities that contradict each other by little, which only the soft problem proves.
  void add_contradictions() {
    for (bool diagonal : {false, true}) {
      const support::Family family = {"contradiction", 4,     3,        2,     false, true,
                                      diagonal,        false, diagonal, false, 0,     0};
      auto batch = support::random_batch<double>(family, 1, 23);
      std::copy_n(batch.A.begin(), family.n, batch.A.begin() + family.n);
      batch.b[1] = batch.b[0] + 1e-9;
      HowToSolve tight{default_settings<double>(), true};
      tight.settings.eps_abs = tight.settings.eps_rel = 1e-13;
      add_solve(diagonal ? "contradiction, diagonal" : "contradiction", batch, tight);
    }
  }

  /// In single precision a damped form that iterates for long refines its directions.
  void add_single_precision() {
    HowToSolve tight{default_settings<float>(), true};
    tight.settings.eps_abs = tight.settings.eps_rel = 1e-12;
    for (const support::Family& family : support::families())
      if (family.lb && family.ub)
        add_solve(family.name + std::string(", float"), support::random_batch<float>(family, 1, 21),
                  tight);
  }
};

std::vector<support::TeamCase> whole_solves() {
  WholeSolves solves;
  for (const support::Family& family : support::families()) solves.add_family(family);
  solves.add_stalled();
  solves.add_failures();
  solves.add_contradictions();
  solves.add_single_precision();
  return solves.cases;
}

TEST(Barriers, EveryOneIsMissedWhenItIsOff) {
  const support::BarrierReport report = support::switch_off_barriers(whole_solves());
  std::cout << report.table();
  for (const std::string& place : report.unreached_places("qp"))
    EXPECT_EQ(place.rfind("library_setup.hpp:", 0), 0u) << place;  // of cuda/setup_teams_test.cpp
  std::set<Site> names = {Site::kLoad, Site::kStore};              // of cuda
  for (const support::Barrier& barrier : report.barriers) names.insert(barrier.site);
  EXPECT_EQ(names.size(), static_cast<size_t>(Site::kCount)) << "names that no case waits at";
  if (support::kThreadSanitizer) {
    EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
    return;
  }
  // Values do not show what is read too early where it was the same before, or is padding.
  const std::set<Site> only_races = {Site::kGramEnd, Site::kDualSetup, Site::kDualFactor,
                                     Site::kBest};
  for (const support::Barrier& barrier : report.unnoticed())
    EXPECT_TRUE(only_races.count(barrier.site)) << barrier.place();
  EXPECT_LE(report.unnoticed().size(), 5u);
}

}  // namespace
}  // namespace torchqp::qp
