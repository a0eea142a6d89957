// Compiled once, for the least instruction set: what it writes passes through memory, whose speed
// no wider register raises.

#include "cpu/gradient_batch.hpp"

#include <algorithm>

#include "core/status.hpp"

namespace torchqp::cpu {
namespace {

/// out [cols] = a * v + b * w, the row of a matrix of rank two.
template <class T>
inline void write_row(T* __restrict out, int64_t cols, T a, const T* __restrict v, T b,
                      const T* __restrict w) {
  for (int64_t j = 0; j < cols; ++j) out[j] = a * v[j] + b * w[j];
}

template <class T>
class Member {
 public:
  Member(const GradientBatch<T>& batch, int64_t index)
      : batch_(batch), index_(index), n_(batch.dims.n), m_(batch.dims.m), p_(batch.dims.p) {}

  void write() const {
    const MemberGradients<T> entries(batch_, index_);
    const T *z = entries.z(), *d_z = entries.d_z();
    const auto rows = [&](T* to, int64_t count, const auto& row_of) {
      for (int64_t i = 0; to != nullptr && i < count; ++i) {
        const auto row = row_of(i);
        write_row(to + i * n_, n_, row.a, z, row.b, d_z);
      }
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
      if (to != nullptr) std::fill_n(to + index_ * size, size, T(0));
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
  template <class U>
  U* at(U* array, int64_t size) const {
    return array == nullptr ? nullptr : array + index_ * size;
  }

  const GradientBatch<T>& batch_;
  int64_t index_, n_, m_, p_;
};

}  // namespace

template <class T>
void gradient_batch(const GradientBatch<T>& batch, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const Member<T> member(batch, i);
    if (is_solved(static_cast<Status>(batch.status[i]))) {
      member.write();
    } else {
      member.write_zeros();
    }
  }
}

template void gradient_batch(const GradientBatch<float>&, int64_t, int64_t);
template void gradient_batch(const GradientBatch<double>&, int64_t, int64_t);

}  // namespace torchqp::cpu
