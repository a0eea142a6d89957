#pragma once
// The body of gradient_batch; the formulas and shapes are at GradientBatch in core/gradients.hpp.

#include <algorithm>
#include <cstdint>

#include "core/gradients.hpp"
#include "core/pack.hpp"
#include "core/status.hpp"
#include "cpu/pack_io.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// Rows of at most kParts W columns, whose v and w stay in registers; see write_rows.
template <int kParts, int W, class T, class RowOf>
TORCHQP_HD void write_short_rows(T* to, int64_t rows, int64_t cols, const T* v, const T* w,
                                 const RowOf& row_of) {
  using Wide = Pack<T, W>;
  using Register = typename Wide::Register;
  int64_t at[kParts];
  Wide left[kParts], right[kParts];
  TORCHQP_UNROLL
  for (int k = 0; k < kParts; ++k) {
    at[k] = std::min<int64_t>(k * W, cols - W);  // the last part may overlap the one before it
    left[k] = {load_row<Register, W>(v + at[k])}, right[k] = {load_row<Register, W>(w + at[k])};
  }
  for (int64_t i = 0; i < rows; ++i) {
    const auto row = row_of(i);
    const Wide a = broadcast<Wide>(row.a), b = broadcast<Wide>(row.b);
    TORCHQP_UNROLL
    for (int k = 0; k < kParts; ++k)
      store_row<W>((a * left[k] + b * right[k]).v, to + i * cols + at[k]);
  }
}

/// to(i, j) = a_i v_j + b_i w_j, rows of a matrix of rank two in the order of memory.
template <int W, class T, class RowOf>
TORCHQP_HD void write_rows(T* to, int64_t rows, int64_t cols, const T* v, const T* w,
                           const RowOf& row_of) {
  using Wide = Pack<T, W>;
  using Register = typename Wide::Register;
  if (cols < W) {
    for (int64_t i = 0; i < rows; ++i) {
      const auto row = row_of(i);
      for (int64_t j = 0; j < cols; ++j) to[i * cols + j] = row.a * v[j] + row.b * w[j];
    }
  } else if (cols <= W) {
    write_short_rows<1, W>(to, rows, cols, v, w, row_of);
  } else if (cols <= 2 * W) {
    write_short_rows<2, W>(to, rows, cols, v, w, row_of);
  } else if (cols <= 3 * W) {
    write_short_rows<3, W>(to, rows, cols, v, w, row_of);
  } else if (cols <= 4 * W) {
    write_short_rows<4, W>(to, rows, cols, v, w, row_of);
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      const auto row = row_of(i);
      const Wide a = broadcast<Wide>(row.a), b = broadcast<Wide>(row.b);
      for (int64_t next = 0; next < cols; next += W) {
        const int64_t j = std::min(next, cols - W);
        const Wide left = {load_row<Register, W>(v + j)}, right = {load_row<Register, W>(w + j)};
        store_row<W>((a * left + b * right).v, to + i * cols + j);
      }
    }
  }
}

/// All gradients of one member.
template <int W, class T>
class GradientWriter {
 public:
  GradientWriter(const GradientBatch<T>& batch, int64_t member)
      : batch_(batch), member_(member), n_(batch.dims.n), m_(batch.dims.m), p_(batch.dims.p) {}

  void write() const {
    const MemberGradients<T> entries(batch_, member_);
    const T *z = entries.z(), *d_z = entries.d_z();
    const auto rows = [&](T* to, int64_t count, const auto& row_of) {
      if (to != nullptr) write_rows<W>(to, count, n_, z, d_z, row_of);
    };
    const auto vector = [&](T* to, int64_t count, const auto& entry) {
      for (int64_t i = 0; to != nullptr && i < count; ++i) to[i] = entry(i);
    };
    if (batch_.dims.diagonal) {
      vector(at(batch_.Q, n_), n_, [&](int64_t i) { return entries.diagonal(i); });
    } else {
      rows(at(batch_.Q, n_ * n_), n_, [&](int64_t i) { return entries.Q(i); });
    }
    rows(at(batch_.G, m_ * n_), m_, [&](int64_t i) { return entries.G(i); });
    rows(at(batch_.A, p_ * n_), p_, [&](int64_t i) { return entries.A(i); });
    vector(at(batch_.b, p_), p_, [&](int64_t i) { return entries.b(i); });
    vector(at(batch_.h, m_), m_, [&](int64_t i) { return entries.h(i); });
    vector(at(batch_.h_lower, m_), m_, [&](int64_t i) { return entries.h_lower(i); });
    vector(at(batch_.ub, n_), n_, [&](int64_t i) { return entries.ub(i); });
    vector(at(batch_.lb, n_), n_, [&](int64_t i) { return entries.lb(i); });
  }

  void write_zeros() const {
    const auto zero = [&](T* to, int64_t size) {
      if (to != nullptr) std::fill_n(to + member_ * size, size, T(0));
    };
    zero(batch_.Q, batch_.dims.diagonal ? n_ : n_ * n_);
    zero(batch_.G, m_ * n_);
    zero(batch_.A, p_ * n_);
    zero(batch_.b, p_);
    for (T* side : {batch_.h, batch_.h_lower}) zero(side, m_);
    for (T* side : {batch_.lb, batch_.ub}) zero(side, n_);
  }

 private:
  /// This member's part of an array with `size` entries a member.
  T* at(T* array, int64_t size) const {
    return array == nullptr ? nullptr : array + member_ * size;
  }

  const GradientBatch<T>& batch_;
  int64_t member_, n_, m_, p_;
};

}  // namespace detail

/// Writes the gradients of members begin .. end - 1, matrices by W entries at a time; zeros for a member
/// that was not solved.
template <int W, class T>
void write_gradients(const GradientBatch<T>& batch, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const detail::GradientWriter<W, T> member(batch, i);
    if (is_solved(static_cast<Status>(batch.status[i]))) {
      member.write();
    } else {
      member.write_zeros();
    }
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
