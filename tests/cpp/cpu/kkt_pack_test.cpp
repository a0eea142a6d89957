// The rows of a pack of linearised systems: each member has its own.
#include "cpu/kkt_pack.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace torchqp::cpu {
namespace {

using Numbers = std::vector<double>;

template <class T>
StridedArray<T> shared(const std::vector<T>& values, int64_t row) {
  StridedArray<T> array;
  array.data = values.data(), array.row = row, array.col = 1;
  return array;
}

template <class T>
StridedArray<T> per_member(const std::vector<T>& values, int64_t row, int64_t members) {
  StridedArray<T> array = shared(values, row);
  array.batch.ndim = 1;
  array.batch.sizes[0] = members;
  array.batch.strides[0] = static_cast<int64_t>(values.size()) / members;
  return array;
}

/// Q = I, G = (1 0; 0 1; 1 1), g = (3, 5 | 7, 11, 13). Of the first member the last row holds, of the
/// second the first two, of the third none.
struct Example {
  static constexpr int64_t kSize = 3;
  Numbers Q = {1, 0, 0, 1}, G = {1, 0, 0, 1, 1, 1}, g_z = {3, 5}, g_lam = {7, 11, 13};
  std::vector<int8_t> active = {0, 0, 1, -1, 1, 0, 0, 0, 0};
  std::vector<int32_t> status = {0, 1, 0}, info = {-1, -1, -1};
  /// Tag, factor of Q, factor of the rows that hold.
  Numbers factor = {
      1, 1, 0, 1, std::sqrt(2.0), 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0,
      0, 0, 0, 0};
  Numbers d_z = Numbers(6, -1), d_lam = Numbers(9, -1), d_nu;

  KktBatch<double> view() {
    KktBatch<double> system;
    system.dims.n = 2, system.dims.m = 3;
    system.dims.h_lower = system.dims.h_upper = true;
    system.size = kSize;
    system.Q = shared(Q, 2), system.G = shared(G, 2);
    system.active = per_member(active, 1, kSize);
    system.status = per_member(status, 1, kSize);
    system.factor = per_member(factor, 1, kSize);
    system.g_z = shared(g_z, 1), system.g_lam = shared(g_lam, 1);
    system.d_z = d_z.data(), system.d_lam = d_lam.data(), system.d_nu = d_nu.data();
    system.info = info.data();
    return system;
  }
};

/// `tags`: which members have a factor.
template <int W>
void expect_the_answers(const Numbers& tags) {
  using Scalar = std::conditional_t<W == 1, double, Pack<double, W>>;
  Example example;
  for (size_t i = 0; i < tags.size(); ++i) example.factor[10 * i] = tags[i];
  const KktBatch<double> system = example.view();
  std::vector<Scalar> workspace(static_cast<size_t>(kkt_pack_size<Scalar>(system.dims)));
  for (int64_t begin = 0; begin < Example::kSize; begin += W) {
    std::memset(static_cast<void*>(workspace.data()), 0xA5, workspace.size() * sizeof(Scalar));
    const Members<W> members(begin, Example::kSize);
    kkt_pack<Scalar>(system, members, workspace.data());
  }
  const Numbers d_z = {-5.5, -7.5, -7, -11, -3, -5}, d_lam = {0, 0, 2.5, 4, 6, 0, 0, 0, 0};
  for (size_t i = 0; i < d_z.size(); ++i) EXPECT_NEAR(example.d_z[i], d_z[i], 1e-13) << i;
  for (size_t i = 0; i < d_lam.size(); ++i) {
    EXPECT_NEAR(example.d_lam[i], d_lam[i], 1e-13) << i;
    EXPECT_TRUE(d_lam[i] != 0 || example.d_lam[i] == 0) << i;
  }
  EXPECT_EQ(example.info, (std::vector<int32_t>{0, 0, 0}));
}

TEST(KktPack, EveryMemberHasRowsOfItsOwn) {
  for (const Numbers& tags : {Numbers{1, 1, 1}, {1, 0, 1}, {0, 1, 0}, {0, 0, 0}}) {
    expect_the_answers<1>(tags);
    expect_the_answers<2>(tags);
  }
}

}  // namespace
}  // namespace torchqp::cpu
