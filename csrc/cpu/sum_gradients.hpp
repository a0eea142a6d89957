#pragma once
// The gradients of matrices that all members share, summed while the members' own are written: no
// matrix per member, and no second pass over the adjoints. Formulas and layout: core/gradients.hpp.

#include <algorithm>
#include <cstdint>
#include <optional>

#include "core/gradients.hpp"
#include "core/pack.hpp"
#include "core/status.hpp"
#include "cpu/pack_io.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// Adds matrices of rank two, one a member, in double precision whatever the data is.
template <class T>
class GradientSummer {
  static constexpr int W = kWidth<double>;
  using Wide = Pack<double, W>;
  using Register = typename Wide::Register;
  static_assert(GradientSums::kPadding % W == 0);
  static constexpr int kGroup = 8;     ///< members between reading and writing a sum
  static constexpr int kColumns = 64;  ///< of as many members, at hand at once
  static constexpr int kRows = 4;      ///< sums in registers
  static_assert(GradientSums::kPadding % kRows == 0 && kColumns % W == 0);

 public:
  explicit GradientSummer(const GradientBatch<T>& batch)
      : batch_(batch), stride_(GradientSums::padded(batch.dims.n)) {}

  /// Adds members begin .. end - 1, all of part `part`. Those that were not solved add nothing.
  void add(int64_t part, int64_t begin, int64_t end) {
    const auto next_solved = [&](int64_t i) {
      while (i < end && !is_solved(static_cast<Status>(batch_.status[i]))) ++i;
      return i;
    };
    for (int64_t i = next_solved(begin); i < end;) {
      for (count_ = 0; count_ < kGroup && i < end; i = next_solved(i + 1))
        members_[count_++].emplace(batch_, i);
      add_group(part);
    }
  }

 private:
  void add_group(int64_t part) {
    const Dims& dims = batch_.dims;
    for (int64_t column = 0; column < stride_; column += kColumns) {
      const int64_t columns = std::min<int64_t>(kColumns, stride_ - column);
      for (int k = 0; k < count_; ++k) {
        copy(left_[k], members_[k]->z(), column, columns);
        copy(right_[k], members_[k]->d_z(), column, columns);
      }
      const auto rows = [&](double* sums, int64_t count, const auto& row_of) {
        if (sums == nullptr) return;
        sums += part * GradientSums::padded(count) * stride_ + column;
        for (int64_t i = 0; i < count; i += kRows)
          add_rows(sums + i * stride_, columns, i, std::min<int64_t>(kRows, count - i), row_of);
      };
      using Member = const MemberGradients<T>&;
      rows(batch_.sums.Q, dims.n, [](Member member, int64_t i) { return member.Q(i); });
      rows(batch_.sums.G, dims.m, [](Member member, int64_t i) { return member.G(i); });
      rows(batch_.sums.A, dims.p, [](Member member, int64_t i) { return member.A(i); });
    }
  }

  void copy(double* to, const T* from, int64_t column, int64_t columns) const {
    const int64_t given = std::min<int64_t>(columns, batch_.dims.n - column);
    for (int64_t j = 0; j < given; ++j) to[j] = static_cast<double>(from[column + j]);
    for (int64_t j = given; j < columns; ++j) to[j] = 0;
  }

  /// Adds the members' rows `first` .. first + count - 1.
  template <class RowOf>
  void add_rows(double* to, int64_t columns, int64_t first, int64_t count, const RowOf& row_of) {
    double a[kGroup][kRows], b[kGroup][kRows];
    for (int k = 0; k < count_; ++k) {
      for (int r = 0; r < kRows; ++r) {
        const auto row = row_of(*members_[k], first + std::min<int64_t>(r, count - 1));
        a[k][r] = static_cast<double>(row.a), b[k][r] = static_cast<double>(row.b);
      }
    }
    for (int64_t j = 0; j < columns; j += W) {
      Wide sums[kRows];
      TORCHQP_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r] = {load_row<Register, W>(to + r * stride_ + j)};
      for (int k = 0; k < count_; ++k) {
        const Wide left = {load_row<Register, W>(left_[k] + j)},
                   right = {load_row<Register, W>(right_[k] + j)};
        TORCHQP_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sums[r] = sums[r] + broadcast<Wide>(a[k][r]) * left;
          sums[r] = sums[r] + broadcast<Wide>(b[k][r]) * right;
        }
      }
      TORCHQP_UNROLL
      for (int r = 0; r < kRows; ++r) store_row<W>(sums[r].v, to + r * stride_ + j);
    }
  }

  const GradientBatch<T>& batch_;
  int64_t stride_;
  std::optional<MemberGradients<T>> members_[kGroup];
  int count_ = 0;
  double left_[kGroup][kColumns], right_[kGroup][kColumns];
};

}  // namespace detail

/// Adds the gradients of members begin .. end - 1 to batch.sums. Calls for members of the same part
/// come one after the other, in the order of the members.
template <class T>
void sum_gradients(const GradientBatch<T>& batch, int64_t begin, int64_t end) {
  const int64_t length = batch.sums.part;
  if (length == 0) return;
  detail::GradientSummer<T> summer(batch);
  while (begin < end) {
    const int64_t part = begin / length, stop = std::min(end, (part + 1) * length);
    summer.add(part, begin, stop);
    begin = stop;
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
