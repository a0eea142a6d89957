// The rows of a pack of linearised systems, of which each member has its own, and refinement with a
// factor that is slightly off.
#include "cpu/kkt_pack.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cpu/systems.hpp"

namespace torchqp::cpu {
namespace {

using Numbers = std::vector<double>;

/// Q = I, G = (1 0; 0 1; 1 1), g = (3, 5 | 7, 11, 13). Of the first member the last row holds, of the
/// second the first two, of the third none.
struct Example {
  static constexpr int kFactorSize = 10;
  QpBatch<double> batch;
  std::vector<int8_t> active = {0, 0, 1, -1, 1, 0, 0, 0, 0};
  std::vector<int32_t> status = {0, 1, 0}, info = {-1, -1, -1};
  Numbers g_z = {3, 5}, g_lam = {7, 11, 13};
  /// Of each member: tag, triangle of Q's factor, triangle of that of the rows that hold.
  Numbers factor;
  Numbers d_z = Numbers(6, -1), d_lam = Numbers(9, -1), d_nu;

  /// `tags`: which members have a factor; `off`: its relative error.
  explicit Example(const Numbers& tags, double off = 0) {
    batch.dims.n = 2, batch.dims.m = 3;
    batch.dims.h_lower = batch.dims.h_upper = true;
    batch.size = 3;
    const Numbers rows[] = {{std::sqrt(2.0), 0, 0, 0, 0, 0}, {1, 0, 1, 0, 0, 0}, Numbers(6, 0)};
    for (size_t i = 0; i < tags.size(); ++i) {
      const Numbers Q = {1, 0, 0, 1}, G = {1, 0, 0, 1, 1, 1};
      batch.Q.insert(batch.Q.end(), Q.begin(), Q.end());
      batch.G.insert(batch.G.end(), G.begin(), G.end());
      factor.push_back(tags[i]);
      for (double entry : {1.0, 0.0, 1.0}) factor.push_back(entry * (1 + off));
      for (double entry : rows[i]) factor.push_back(entry * (1 + off));
    }
  }

  template <int W>
  void solve() {
    using Scalar = std::conditional_t<W == 1, double, Pack<double, W>>;
    const ProblemBatch<double> problem = batch.view();
    KktBatch<double> system;
    system.dims = batch.dims, system.size = batch.size;
    system.Q = problem.Q, system.G = problem.G;
    system.active = rows_of(active, 3);
    system.status = rows_of(status, 1);
    system.factor = rows_of(factor, kFactorSize);
    system.g_z = rows_of(g_z, 2), system.g_lam = rows_of(g_lam, 3);
    system.d_z = d_z.data(), system.d_lam = d_lam.data(), system.d_nu = d_nu.data();
    system.info = info.data();
    support::Scratch scratch;
    const size_t bytes = kkt_pack_size<Scalar>(system.dims) * sizeof(Scalar);
    auto* workspace = scratch.get<unsigned char>(bytes);
    for (int64_t begin = 0; begin < batch.size; begin += W) {
      std::memset(workspace, 0xA5, bytes);
      kkt_pack<Scalar>(system, Members<W>(begin, batch.size), workspace);
    }
    EXPECT_TRUE(scratch.intact());
  }

  void expect_the_answers() const {
    const Numbers right_z = {-5.5, -7.5, -7, -11, -3, -5};
    const Numbers right_lam = {0, 0, 2.5, 4, 6, 0, 0, 0, 0};
    for (size_t i = 0; i < d_z.size(); ++i) EXPECT_NEAR(d_z[i], right_z[i], 1e-13) << i;
    for (size_t i = 0; i < d_lam.size(); ++i) {
      EXPECT_NEAR(d_lam[i], right_lam[i], 1e-13) << i;
      EXPECT_TRUE(right_lam[i] != 0 || d_lam[i] == 0) << i << ": not a row that holds";
    }
    EXPECT_EQ(info, (std::vector<int32_t>{0, 0, 0}));
  }
};

TEST(KktPack, EveryMemberHasRowsOfItsOwn) {
  for (const Numbers& tags : {Numbers{1, 1, 1}, {1, 0, 1}, {0, 1, 0}, {0, 0, 0}}) {
    Example single(tags), paired(tags);
    single.solve<1>(), paired.solve<2>();
    single.expect_the_answers(), paired.expect_the_answers();
  }
}

/// The step that is not looked at must end in rounding from wherever it starts.
TEST(KktPack, AFactorThatIsOffIsRefinedToTheSameAnswer) {
  for (double off : {1e-3, 5e-4, 2e-4, 1e-4, 1e-5, 1e-7, 1e-9, 1e-10}) {
    SCOPED_TRACE(off);
    Example single({1, 1, 1}, off), paired({1, 1, 1}, off);
    single.solve<1>(), paired.solve<2>();
    single.expect_the_answers(), paired.expect_the_answers();
  }
}

}  // namespace
}  // namespace torchqp::cpu
