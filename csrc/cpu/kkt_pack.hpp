#pragma once
// One pack of linearised KKT systems, from the caller's tensors to the answer.

#include <algorithm>
#include <cstdint>

#include "core/status.hpp"
#include "cpu/factor_io.hpp"
#include "cpu/pack_io.hpp"
#include "qp/adjoint.hpp"
#include "qp/written.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The rows of G that a pack's systems are made of. Of a member with a factor of the dual form those
/// that hold, one after the other: the others are no part of its system, and the larger part of G. Of
/// one without a factor all in their order, as the scales of other forms depend on them.
template <int W>
class SystemRows {
 public:
  /// `numbers` has room for W m numbers. A member that was not solved has no rows.
  template <class T>
  SystemRows(const KktBatch<T>& system, const Members<W>& members, int32_t* numbers)
      : m_(system.dims.m), lists_(prefers_dual(system.dims)), numbers_(numbers) {
    length_ = lists_ ? 0 : m_;
    if (!lists_) return;
    for (int w = 0; w < W; ++w) {
      const int64_t member = members.index[w];
      const int8_t* active = at(system.active, member);
      const T* factor = at(system.factor, member);
      const bool live = is_solved(static_cast<Status>(*at(system.status, member)));
      const bool all = factor == nullptr || !(*factor > 0);
      int32_t count = 0;
      for (int i = 0; live && active != nullptr && i < m_; ++i) {
        numbers_[count * W + w] = i;
        count += all || active[i * system.active.row] != 0 ? 1 : 0;
      }
      count_[w] = count;
      length_ = std::max(length_, count);
    }
  }

  /// The sizes of the systems.
  Dims dims(Dims of_problem) const {
    // With few of many rows a diagonal Q would look as if it were worked on as such.
    if (lists_) of_problem.diagonal = false;
    of_problem.m = length_;
    return of_problem;
  }

  /// to(r, j) = G(row r of each member, j), zero for a member with fewer rows; padding zero.
  template <class Scalar, class T>
  void load_matrix(Scalar* to, const qp::Shape& s, const StridedArray<T>& G,
                   const Members<W>& members) const {
    if (!lists_) {
      cpu::load_matrix(to, s.np, s.mp, G, s.m, s.n, members);
      return;
    }
    const Scalar zero = broadcast<Scalar>(0);
    Scalar count = zero;
    for (int w = 0; w < W; ++w) set(count, w, static_cast<Element<Scalar>>(count_[w]));
    const Starts<T, W> starts(G, members);
    for (int r = 0; r < length_; ++r) {
      Starts<T, W> row = starts;
      for (int w = 0; w < W; ++w) row.of[w] += r < count_[w] ? numbers_[r * W + w] * G.row : 0;
      Scalar* row_to = to + int64_t{r} * s.np;
      PackReader<Scalar, T>(row.of, G.col, s.n).read(0, s.n, row_to);
      const auto mine = broadcast<Scalar>(r) < count;
      if (!all(mine)) {
        for (int j = 0; j < s.n; ++j) row_to[j] = select(mine, row_to[j], zero);
      }
      for (int j = s.n; j < s.np; ++j) row_to[j] = zero;
    }
    std::fill(to + int64_t{length_} * s.np, to + int64_t{s.mp} * s.np, zero);
  }

  /// to[r] = from(row r of each member); padding zero.
  template <class Scalar, class T>
  void load_vector(Scalar* to, const qp::Shape& s, const StridedArray<T>& from,
                   const Members<W>& members) const {
    if (!lists_) {
      cpu::load_vector(to, s.mp, from, s.m, 0, members);
      return;
    }
    const Scalar zero = broadcast<Scalar>(0);
    std::fill(to, to + s.mp, zero);
    if (from.data == nullptr) return;
    const Starts<T, W> starts(from, members);
    for (int w = 0; w < W; ++w) {
      for (int r = 0; r < count_[w]; ++r) {
        const T value = starts.of[w][numbers_[r * W + w] * from.row];
        set(to[r], w, static_cast<Element<Scalar>>(value));
      }
    }
  }

  /// The reverse of load_vector; zero for other rows.
  template <class T, class Value>
  void write_vector(T* to, const Members<W>& members, const Value& value) const {
    if (!lists_) {
      cpu::write_vector(to, m_, members, value);
      return;
    }
    for (int w = 0; w < members.count; ++w) std::fill_n(to + members.index[w] * m_, m_, T(0));
    for (int r = 0; r < length_; ++r) {
      const auto entry = value(r);
      for (int w = 0; w < members.count; ++w) {
        if (r < count_[w])
          to[members.index[w] * m_ + numbers_[r * W + w]] = static_cast<T>(get(entry, w));
      }
    }
  }

 private:
  template <class U>
  static const U* at(const StridedArray<U>& array, int64_t member) {
    return array.data == nullptr ? nullptr : array.data + array.batch.offset(member);
  }

  int m_;
  int length_;        ///< rows of the pack's systems: the largest count
  bool lists_;        ///< whether rows are listed; else all members have all rows
  int32_t* numbers_;  ///< [length, W] number in G of row r of each member
  int count_[W];      ///< rows of each member
};

/// Scalars that hold the numbers of a pack's rows.
template <class Scalar>
int64_t row_numbers_size(const Dims& dims) {
  const int64_t bytes = int64_t{dims.m} * width_v<Scalar> * static_cast<int64_t>(sizeof(int32_t));
  const auto size = static_cast<int64_t>(sizeof(Scalar));
  return (bytes + size - 1) / size;
}
/// Scalars that kkt_pack works in.
template <class Scalar>
int64_t kkt_pack_size(const Dims& dims) {
  return row_numbers_size<Scalar>(dims) + qp::adjoint_size<SerialTeam, Scalar>(dims);
}

/// Solves the systems of the members of a pack: the body of kkt_batch (core/problem.hpp has the formula
/// and the shapes). `workspace`: kkt_pack_size Scalars of any content, 64-byte aligned. Where the
/// answer overflows it is zero and `info` 1.
template <class Scalar, class T, int W>
void kkt_pack(const KktBatch<T>& system, const Members<W>& members, void* workspace) {
  qp::Arena<Scalar> arena{static_cast<Scalar*>(workspace)};
  const SystemRows<W> rows(
      system, members,
      reinterpret_cast<int32_t*>(arena.take(row_numbers_size<Scalar>(system.dims))));
  const qp::Shape s = qp::adjoint_shape<SerialTeam, Scalar>(rows.dims(system.dims));
  qp::Adjoint<Scalar> adjoint(s, arena);
  load_hessian(adjoint.data.Q, s, system.Q, system.dims.diagonal, members);
  rows.load_matrix(adjoint.data.G, s, system.G, members);
  load_matrix(adjoint.data.A, s.np, s.pp, system.A, s.p, s.n, members);
  load_vector(adjoint.g_z, s.np, system.g_z, s.n, 0, members);
  load_vector(adjoint.g_nu, s.pp, system.g_nu, s.p, 0, members);
  rows.load_vector(adjoint.g_lam, s, system.g_lam, members);
  rows.load_vector(adjoint.active, s, system.active, members);
  if (s.bounds) {
    load_vector(adjoint.g_lam + s.mp, s.np, system.g_bound, s.n, 0, members);
    StridedArray<int8_t> bounds = system.active;
    bounds.data += s.m * bounds.row;
    load_vector(adjoint.active + s.mp, s.np, bounds, s.n, 0, members);
  }
  load_vector(adjoint.live, 1, system.status, 1, 0, members);
  adjoint.live[0] =
      select(adjoint.live[0] <= broadcast<Scalar>(1), broadcast<Scalar>(1), broadcast<Scalar>(0));
  prefetch_matrices(system, members);
  prefetch_next(system.factor, factor_size(system.dims), members, system.size, kPrefetched);
  qp::list_held(SerialTeam{}, adjoint);
  load_factor(adjoint, system.dims, system.factor, members);
  qp::solve_adjoint(SerialTeam{}, adjoint);
  const auto held = qp::held_by<T>(s, adjoint.d_z, adjoint.d_nu, adjoint.d_lam);
  const Scalar zero = broadcast<Scalar>(0);
  const Scalar info = select(held, adjoint.info[0], broadcast<Scalar>(1));
  const auto entry = [&](const Scalar* from) {
    return [&held, zero, from](int64_t i) { return select(held, from[i], zero); };
  };
  write_vector(system.d_z, s.n, members, entry(adjoint.d_z));
  write_vector(system.d_nu, s.p, members, entry(adjoint.d_nu));
  rows.write_vector(system.d_lam, members, entry(adjoint.d_lam));
  if (s.bounds) write_vector(system.d_bound, s.n, members, entry(adjoint.d_lam + s.mp));
  for (int w = 0; w < members.count; ++w)
    system.info[members.index[w]] = static_cast<int32_t>(get(info, w));
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
