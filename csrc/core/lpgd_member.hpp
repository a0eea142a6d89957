#pragma once
// The LPGD adjoint of one member around its solves: formulas are at LpgdBatch.

#include <cstdint>
#include <limits>

#include "core/lpgd.hpp"
#include "core/pack.hpp"
#include "core/status.hpp"

namespace torchqp {
namespace lpgd {

/// The vector of one member.
template <class T>
struct Entries {
  const T* data;
  int64_t row;

  TORCHQP_HD Entries(const StridedArray<T>& array, int64_t member)
      : data(array.data == nullptr ? nullptr : array.data + array.batch.offset(member)),
        row(array.row) {}
  TORCHQP_HD bool given() const { return data != nullptr; }
  TORCHQP_HD T operator[](int64_t i) const { return data[i * row]; }
  /// The largest magnitude, and `floor` if that is larger; NaN if any is.
  TORCHQP_HD T largest(int count, T floor) const {
    for (int i = 0; given() && i < count; ++i) floor = max_norm(floor, (*this)[i]);
    return floor;
  }
};

template <class T>
TORCHQP_HD T moved_side(T side, T by) {
  const bool infinite = absolute(side) >= static_cast<T>(kInfinity);
  return infinite ? side : side + by;
}

/// |t| of one member; see LpgdBatch. Every lane finds it for itself.
template <class T>
TORCHQP_HD T step_of(const LpgdBatch<T>& batch, int64_t member) {
  const Dims& dims = batch.dims;
  T size = Entries<T>(batch.g_z, member).largest(dims.n, 0);
  size = Entries<T>(batch.g_nu, member).largest(dims.p, size);
  size = Entries<T>(batch.g_lam, member).largest(dims.m, size);
  size = Entries<T>(batch.g_lb, member).largest(dims.n, size);
  size = Entries<T>(batch.g_ub, member).largest(dims.n, size);
  const bool solved = is_solved(static_cast<Status>(batch.status[member]));
  if (!solved || !(size > 0)) return std::numeric_limits<T>::quiet_NaN();
  if (!batch.relative) return batch.tau;
  return batch.tau * (1 + Entries<T>(batch.q, member).largest(dims.n, 0)) / size;
}

/// What a member has of a quantity at both ends of the difference; nullptr: zero.
template <class T>
struct Ends {
  const T *first, *last;  ///< at the larger t, at the smaller one

  TORCHQP_HD T upper(int64_t i) const { return first == nullptr ? T(0) : first[i]; }
  TORCHQP_HD T lower(int64_t i) const { return last == nullptr ? T(0) : last[i]; }
};

}  // namespace lpgd

/// Writes step and moved_* of one member. Team: shared out; nothing is read that another lane wrote.
template <class Team, class T>
TORCHQP_HD void lpgd_move(const Team& team, const LpgdBatch<T>& batch, int64_t member) {
  using Entries = lpgd::Entries<T>;
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const T step = lpgd::step_of(batch, member);
  team.single([&] { batch.step[member] = step; });

  const bool solved = is_solved(static_cast<Status>(batch.status[member]));
  const Entries g_z(batch.g_z, member), g_nu(batch.g_nu, member), g_lam(batch.g_lam, member);
  const Entries g_lb(batch.g_lb, member), g_ub(batch.g_ub, member);
  const Entries q(batch.q, member), b(batch.b, member);
  const Entries lb(batch.lb, member), ub(batch.ub, member);
  const bool boxed = lb.given() && ub.given();
  for (int end = 0; end < batch.ends; ++end) {
    const T t = (end == 0) == batch.increases ? step : -step;
    const int64_t at = end * batch.size + member;
    if (batch.moved_q != nullptr) {
      T* to = batch.moved_q + at * n;
      team.for_each(n, [&](int i) {
        const T moved = g_z.given() ? q[i] + t * g_z[i] : q[i];
        to[i] = batch.rho == 0 ? moved : moved - batch.rho * (solved ? batch.z[member * n + i] : 0);
      });
    }
    const auto move_rows = [&](T* all, const StridedArray<T>& array) {
      if (all == nullptr) return;
      T* to = all + at * m;
      const Entries side(array, member);
      team.for_each(m, [&](int i) { to[i] = lpgd::moved_side(side[i], -t * g_lam[i]); });
    };
    move_rows(batch.moved_h_lower, batch.h_lower);
    move_rows(batch.moved_h, batch.h);
    if (batch.moved_b != nullptr) {
      T* to = batch.moved_b + at * p;
      team.for_each(p, [&](int i) { to[i] = b[i] - t * g_nu[i]; });
    }
    if (batch.moved_lb == nullptr && batch.moved_ub == nullptr) continue;
    team.for_each(n, [&](int i) {
      T lower = g_lb.given() ? g_lb[i] : 0, upper = g_ub.given() ? -g_ub[i] : 0;
      const int64_t own = member * n + i;
      if (boxed && lb[i] == ub[i])
        lower = upper = batch.lam_ub[own] > batch.lam_lb[own] ? upper : lower;
      if (batch.moved_lb != nullptr)
        batch.moved_lb[at * n + i] = lpgd::moved_side(lb[i], t * lower);
      if (batch.moved_ub != nullptr)
        batch.moved_ub[at * n + i] = lpgd::moved_side(ub[i], t * upper);
    });
  }
}

/// Writes d_*, mean_*, *_grad and info of one member; see LpgdBatch. Zeros, but for the means, where
/// step is NaN or no end was solved. Team: shared out; nothing is read that another lane wrote.
template <class Team, class T>
TORCHQP_HD void lpgd_difference(const Team& team, const LpgdBatch<T>& batch, int64_t member) {
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const bool two = batch.ends == 2;
  const auto reached = [&](int end) {
    const int64_t at = end * batch.size + member;
    return is_solved(static_cast<Status>(batch.end_status[at]));
  };
  const bool good = reached(0), other = two && reached(1);
  const T step = batch.step[member];
  const T distance = step * static_cast<T>(int{good} + int{other});
  const T inverse = distance > 0 ? 1 / distance : 0;
  // A step of NaN, of a member without a cotangent or a solution, is no failure of its ends.
  const bool failed = !good || (two && !other);
  team.single([&] { batch.info[member] = failed && step == step ? 1 : 0; });

  const bool solved = is_solved(static_cast<Status>(batch.status[member]));
  const auto ends_of = [&](const T* centre, const T* ends, int count) {
    const T* middle = solved ? centre + member * count : nullptr;
    const T* here = good ? ends + member * count : middle;
    const T* there = other ? ends + (batch.size + member) * count : middle;
    return batch.increases ? lpgd::Ends<T>{here, there} : lpgd::Ends<T>{there, here};
  };
  const auto change = [&](T first, T last) { return (first - last) * inverse; };
  const auto write = [&](const lpgd::Ends<T>& ends, T* d, T* mean, int count) {
    team.for_each(count, [&](int i) {
      const T first = ends.upper(i), last = ends.lower(i);
      d[member * count + i] = change(first, last);
      mean[member * count + i] = (first + last) / 2;
    });
  };
  write(ends_of(batch.z, batch.end_z, n), batch.d_z, batch.mean_z, n);
  write(ends_of(batch.nu, batch.end_nu, p), batch.d_nu, batch.mean_nu, p);
  const lpgd::Ends<T> rows = ends_of(batch.lam, batch.end_lam, m);
  write(rows, batch.d_lam, batch.mean_lam, m);
  team.for_each(m, [&](int i) {
    const T first = rows.upper(i), last = rows.lower(i), zero = 0;
    batch.h_grad[member * m + i] = change(maximum(last, zero), maximum(first, zero));
    batch.h_lower_grad[member * m + i] = change(maximum(-first, zero), maximum(-last, zero));
  });
  if (batch.lb_grad != nullptr) {
    const lpgd::Ends<T> bound = ends_of(batch.lam_lb, batch.end_lam_lb, n);
    team.for_each(
        n, [&](int i) { batch.lb_grad[member * n + i] = change(bound.upper(i), bound.lower(i)); });
  }
  if (batch.ub_grad != nullptr) {
    const lpgd::Ends<T> bound = ends_of(batch.lam_ub, batch.end_lam_ub, n);
    team.for_each(
        n, [&](int i) { batch.ub_grad[member * n + i] = change(bound.lower(i), bound.upper(i)); });
  }
}

}  // namespace torchqp
