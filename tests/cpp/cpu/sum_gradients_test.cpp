// Sums of the gradients of shared matrices: small integers, whose sums are exact in any order.
#include "cpu/sum_gradients.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "core/status.hpp"

namespace torchqp::cpu {
namespace {

/// A batch with m = 3 and p = 5 of which every fifth member failed and is NaN, in parts of 32.
template <class T>
class SumGradients : public testing::Test {
 protected:
  static constexpr int kRows = 3, kEqualities = 5;
  static constexpr int64_t kPart = GradientSums::kMembers;

  void make(int n, int64_t size) {
    size_ = size;
    batch_ = {};
    batch_.dims = {n, kRows, kEqualities, true, true, false, false, false};
    batch_.size = size;
    status_.assign(size, 0);
    for (int64_t i = 4; i < size; i += 5) status_[i] = static_cast<int32_t>(Status::kNotConvex);
    active_.assign(size * kRows, 1);
    batch_.status = status_.data(), batch_.active = active_.data();
    fill(z_, n, batch_.z), fill(d_z_, n, batch_.d_z);
    fill(nu_, kEqualities, batch_.nu), fill(d_nu_, kEqualities, batch_.d_nu);
    fill(lam_, kRows, batch_.lam), fill(d_lam_, kRows, batch_.d_lam);
    fill(g_slack_, kRows, batch_.g_slack);
    const int64_t parts = (size + kPart - 1) / kPart;
    stride_ = GradientSums::padded(n);
    batch_.sums.part = kPart;
    for (auto [sums, to, rows] : {Matrix{&Q_, &batch_.sums.Q, n},
                                  {&G_, &batch_.sums.G, kRows},
                                  {&A_, &batch_.sums.A, kEqualities}}) {
      sums->assign(parts * GradientSums::padded(rows) * stride_, 0.0);
      *to = sums->data();
    }
  }

  /// Every entry of every part is the sum over its members.
  void expect_sums() const {
    for (int64_t begin = 0; begin < size_; begin += kPart) {
      const int64_t part = begin / kPart, end = std::min(size_, begin + kPart);
      using Member = const MemberGradients<T>&;
      const auto expect = [&](const std::vector<double>& sums, int rows, const auto& row_of) {
        const double* at = sums.data() + part * GradientSums::padded(rows) * stride_;
        for (int i = 0; i < rows; ++i) {
          for (int j = 0; j < batch_.dims.n; ++j) {
            double sum = 0;
            for (int64_t k = begin; k < end; ++k) {
              if (status_[k] != 0) continue;
              const MemberGradients<T> member(batch_, k);
              const auto row = row_of(member, i);
              sum += static_cast<double>(row.a * member.z()[j] + row.b * member.d_z()[j]);
            }
            EXPECT_EQ(at[i * stride_ + j], sum) << part << ": " << i << " " << j;
          }
        }
      };
      expect(Q_, batch_.dims.n, [](Member member, int i) { return member.Q(i); });
      expect(G_, kRows, [](Member member, int i) { return member.G(i); });
      expect(A_, kEqualities, [](Member member, int i) { return member.A(i); });
    }
  }

  GradientBatch<T> batch_;

 private:
  struct Matrix {
    std::vector<double>* sums;
    double** to;
    int rows;
  };

  void fill(std::vector<T>& values, int width, const T*& view) {
    values.resize(size_ * width);
    for (int64_t i = 0; i < size_; ++i) {
      for (int j = 0; j < width; ++j) {
        next_ = (next_ * 31 + 17) % 101;
        values[i * width + j] = status_[i] == 0 ? static_cast<T>(2 * (next_ - 50))
                                                : std::numeric_limits<T>::quiet_NaN();
      }
    }
    view = values.data();
  }

  int64_t size_ = 0, stride_ = 0;
  int next_ = 3;
  std::vector<int32_t> status_;
  std::vector<int8_t> active_;
  std::vector<T> z_, nu_, lam_, d_z_, d_nu_, d_lam_, g_slack_;
  std::vector<double> Q_, G_, A_;
};

using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(SumGradients, Precisions);

TYPED_TEST(SumGradients, AddsTheSolvedMembersOfEveryPart) {
  for (const int n : {1, 7, 8, 9, 64, 65, 130}) {
    SCOPED_TRACE(n);
    this->make(n, 70);
    sum_gradients(this->batch_, 0, 70);
    this->expect_sums();
  }
}

TYPED_TEST(SumGradients, GoesOnWhereTheLastCallEnded) {
  this->make(10, 40);
  for (const int64_t begin : {0, 8, 16, 24, 32}) sum_gradients(this->batch_, begin, begin + 8);
  this->expect_sums();
}

TYPED_TEST(SumGradients, AddsOnlyWhatIsAskedFor) {
  this->make(6, 8);
  this->batch_.sums.Q = this->batch_.sums.A = nullptr;
  sum_gradients(this->batch_, 0, 8);
  EXPECT_NE(this->batch_.sums.G[0], 0);
  this->batch_.sums = {};
  sum_gradients(this->batch_, 0, 8);  // nothing, and nowhere
}

}  // namespace
}  // namespace torchqp::cpu
