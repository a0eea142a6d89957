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

/// Every family solved cold, warm, loosely and cut short, its derivative, and the failures.
std::vector<support::TeamCase> whole_solves() {
  std::vector<support::TeamCase> cases;
  const auto add_solve = [&](const std::string& name, const support::QpBatch<double>& batch,
                             const HowToSolve& how) {
    cases.push_back(support::team_case(
        name, [=](const auto& launch) { return run_solver<double>(launch, batch, how)[0]; }));
  };
  const HowToSolve cold{default_settings<double>(), true};
  HowToSolve cut = cold, warm = cold, far = cold, loose = cold;
  cut.settings.max_iter = 3;
  loose.settings.eps_abs = loose.settings.eps_rel = 0.3;  // the polish has an active set to revise
  warm.warm = far.warm = true;
  far.settings.near_start = false;
  for (const support::Family& family : support::families()) {
    const std::string name = family.name;
    auto batch = support::random_batch<double>(family, 1, 21);
    add_solve(name, batch, cold);
    add_solve(name + ", cut short", batch, cut);
    add_solve(name + ", loose", batch, loose);
    const auto solved = run_solver<double>(support::SerialLaunch{}, batch, cold);
    const auto input = adjoint_input<double>(batch.dims, solved, 5);
    cases.push_back(support::team_case(name + ", adjoint", [=](const auto& launch) {
      return run_adjoint<double>(launch, batch, input)[0];
    }));
    const double* z = solved[0].data() + kZ;
    for (int i = 0; i < family.n; ++i) batch.z0.push_back(z[i] + 1e-2);
    for (int i = 0; i < family.p; ++i) batch.nu0.push_back(z[family.n + i]);
    for (int i = 0; i < family.m; ++i) batch.lam0.push_back(z[family.n + family.p + i]);
    add_solve(name + ", warm", batch, warm);
    if (name != "rows") continue;
    // A warm start that lacks a row that holds.
    *std::max_element(batch.lam0.begin(), batch.lam0.end()) = 0;
    add_solve(name + ", nearly right", batch, warm);
    add_solve(name + ", far", batch, far);
  }
  // Pivoting stalls on these, so that only the worst rows are exchanged.
  const support::Family stalled = {"stalled", 6,     6,     0,     false, true,
                                   false,     false, false, false, 0,     0};
  for (unsigned seed : {2u, 18u, 32u})
    add_solve("stalled", support::random_batch<double>(stalled, 1, seed), cold);
  for (bool bounds : {false, true}) {
    const auto troubled = support::troubled_batch<double>(bounds);
    for (int64_t member : {1, 2, 4})
      add_solve("troubled member " + std::to_string(member), troubled.batch.pick({member}), cold);
  }
  return cases;
}

TEST(Barriers, EveryNameIsUsedAndMissedWhenItIsOff) {
  if (support::kThreadSanitizer) GTEST_SKIP() << "without a barrier the lanes race on purpose";
  const support::BarrierReport report = support::switch_off_barriers(whole_solves());
  // A barrier that ends a routine is not missed where its callers read only what the same lane
  // wrote, or where what is read too late has the same value. Names with no other barrier than
  // such:
  const std::set<Site> contracts = {Site::kBest, Site::kAdjointSetup, Site::kAdjointKeep,
                                    Site::kFinish};
  for (int site : report.unnoticed_sites())
    EXPECT_TRUE(contracts.count(Site(site))) << "no test misses the barriers of Site " << site;
  std::set<int> names;
  for (const support::Barrier& barrier : report.barriers)
    names.insert(static_cast<int>(barrier.site));
  names.insert({static_cast<int>(Site::kLoad), static_cast<int>(Site::kStore)});  // of cuda
  EXPECT_EQ(names.size(), static_cast<size_t>(Site::kCount)) << "names that no case waits at";
  std::cout << report.table();
}

}  // namespace
}  // namespace torchqp::qp
