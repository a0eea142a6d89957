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

/// out [size] = -d where `active` has this sign, else 0.
template <class T>
inline void write_side(T* out, int64_t size, const T* d, const int8_t* active, int8_t sign) {
  for (int64_t i = 0; i < size; ++i) out[i] = d != nullptr && active[i] == sign ? -d[i] : T(0);
}

template <class T>
class Member {
 public:
  Member(const GradientBatch<T>& batch, int64_t index)
      : batch_(batch), index_(index), n_(batch.dims.n), m_(batch.dims.m), p_(batch.dims.p) {}

  void write() const {
    const T *z = at(batch_.z, n_), *d_z = at(batch_.d_z, n_);
    const T *lam = at(batch_.lam, m_), *d_lam = at(batch_.d_lam, m_);
    const T *nu = at(batch_.nu, p_), *d_nu = at(batch_.d_nu, p_);
    const T *g_slack = at(batch_.g_slack, m_), *d_bound = at(batch_.d_bound, n_);
    const int8_t* rows = at(batch_.active, m_ + (batch_.dims.bounds() ? n_ : 0));
    const int8_t* bounds = rows + m_;

    if (T* Q = at(batch_.Q, batch_.dims.diagonal ? n_ : n_ * n_)) {
      if (batch_.dims.diagonal) {
        for (int64_t i = 0; i < n_; ++i) Q[i] = d_z[i] * z[i];
      } else {
        // Halves are exact, so that (i, j) and (j, i) are the same two products.
        for (int64_t i = 0; i < n_; ++i) write_row(Q + i * n_, n_, d_z[i] / 2, z, z[i] / 2, d_z);
      }
    }
    if (T* G = at(batch_.G, m_ * n_)) {
      for (int64_t i = 0; i < m_; ++i) {
        const T d = g_slack == nullptr ? d_lam[i] : d_lam[i] - g_slack[i];
        write_row(G + i * n_, n_, d, z, lam[i], d_z);
      }
    }
    if (T* A = at(batch_.A, p_ * n_)) {
      for (int64_t i = 0; i < p_; ++i) write_row(A + i * n_, n_, d_nu[i], z, nu[i], d_z);
    }
    if (T* b = at(batch_.b, p_)) {
      for (int64_t i = 0; i < p_; ++i) b[i] = -d_nu[i];
    }
    if (T* h = at(batch_.h, m_)) {
      write_side(h, m_, d_lam, rows, int8_t{1});
      if (g_slack != nullptr) {
        for (int64_t i = 0; i < m_; ++i) h[i] += g_slack[i];
      }
    }
    if (T* h_lower = at(batch_.h_lower, m_)) write_side(h_lower, m_, d_lam, rows, int8_t{-1});
    if (T* ub = at(batch_.ub, n_)) write_side(ub, n_, d_bound, bounds, int8_t{1});
    if (T* lb = at(batch_.lb, n_)) write_side(lb, n_, d_bound, bounds, int8_t{-1});
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
