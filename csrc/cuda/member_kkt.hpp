#pragma once
// One team's part of a batch of linearised KKT systems. The body of the kkt kernel; tests run it on
// emulated lanes.

#include "cuda/member_io.hpp"
#include "qp/saved_factor.hpp"
#include "qp/written.hpp"

namespace torchqp::cuda {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Solves members in the precision of the data. The object lies in memory that all lanes of its team
/// see.
template <class T>
struct MemberAdjoint {
  qp::Adjoint<T> adjoint;

  TORCHQP_HD MemberAdjoint(const qp::Shape& shape, qp::Arena<T>& arena) : adjoint(shape, arena) {}

  /// Team: every lane calls with equal arguments; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void run(const Team& team, const KktBatch<T>& system, int64_t member) {
    qp::Adjoint<T>& a = adjoint;
    const qp::Shape& s = a.data.shape;
    load_hessian(team, a.data.Q, s, system.Q, system.dims.diagonal, member);
    load_matrix(team, a.data.G, s.np, s.mp, system.G, s.m, s.n, member);
    load_matrix(team, a.data.A, s.np, s.pp, system.A, s.p, s.n, member);
    load_vector(team, a.g_z, s.np, system.g_z, s.n, 0, member);
    load_vector(team, a.g_nu, s.pp, system.g_nu, s.p, 0, member);
    load_vector(team, a.g_lam, s.mp, system.g_lam, s.m, 0, member);
    load_vector(team, a.active, s.mp, system.active, s.m, 0, member);
    if (s.bounds) {
      load_vector(team, a.g_lam + s.mp, s.np, system.g_bound, s.n, 0, member);
      StridedArray<int8_t> bounds = system.active;
      bounds.data += s.m * bounds.row;
      load_vector(team, a.active + s.mp, s.np, bounds, s.n, 0, member);
    }
    const int32_t status = system.status.data[system.status.batch.offset(member)];
    team.single([&] { a.live[0] = is_solved(static_cast<Status>(status)) ? T(1) : T(0); });
    qp::list_held(team, a);
    load_factor(team, system.factor, member);
    team.template sync<Site::kLoad>();
    qp::solve_adjoint(team, a);
    const bool held = qp::held_by<T>(s, a.d_z, a.d_nu, a.d_lam);
    const auto put = [&](T* to, int size, const T* from) {
      T* mine = to + member * size;
      team.for_each(size, [&](int i) { mine[i] = held ? from[i] : T(0); });
    };
    put(system.d_z, s.n, a.d_z);
    put(system.d_nu, s.p, a.d_nu);
    put(system.d_lam, s.m, a.d_lam);
    if (s.bounds) put(system.d_bound, s.n, a.d_lam + s.mp);
    team.single([&] { system.info[member] = held ? static_cast<int32_t>(a.info[0]) : 1; });
    team.template sync<Site::kStore>();
  }

 private:
  /// The inverse of MemberSolver::save_factor. In the dual form the rows that hold must have been
  /// listed. Team: every lane calls; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void load_factor(const Team& team, const StridedArray<T>& from, int64_t member) {
    const bool given = from.data != nullptr && !adjoint.data.shape.diagonal;
    const T* start = given ? from.data + from.batch.offset(member) : nullptr;
    team.single([&] { adjoint.factor_tag[0] = given ? start[0] : T(0); });
    if (!given || start[0] == T(0)) return;
    const auto saved = [&](int64_t at) { return start[at * from.row]; };
    const qp::FactorBlocks<T> factor(team, adjoint, adjoint.data.shape);
    const auto triangle = [](int64_t i) { return i * (i + 1) / 2; };
    // The whole lower triangle, padding included: identity rows.
    team.for_each(factor.np * factor.np, [&](int at) {
      const int i = at / factor.np, j = at - i * factor.np;
      if (j > i) return;
      const T padding = i == j ? T(1) : T(0);
      const T value = i < factor.n ? saved(1 + triangle(i) + j) : padding;
      factor.L[at] = value;
      if (i == j) factor.inverse_L[i] = i < factor.n ? qp::inverse_pivot(value) : T(1);
    });
    const int64_t K = 1 + triangle(factor.n);
    const int count = static_cast<int>(factor.count);
    const int tile = tile_size_v<Team, T>;
    const int last = padded(factor.at(factor.length), tile);
    const int rows = last < factor.stride ? last : factor.stride;
    team.for_each(rows * rows, [&](int at) {
      const int i = at / rows, j = at - i * rows;
      if (j > i) return;
      // Equalities, their padding, the rows that hold, their padding.
      const auto index = [&](int place) {
        if (place < factor.p) return place;
        if (place < factor.pp) return -1;
        const int row = place - factor.pp + factor.p;
        return row < count ? row : -1;
      };
      const int row = index(i), column = index(j);
      const T padding = i == j ? T(1) : T(0);
      const T value = row >= 0 && column >= 0 ? saved(K + triangle(row) + column) : padding;
      factor.K[int64_t{i} * factor.stride + j] = value;
      if (i == j) factor.inverse_K[i] = row >= 0 ? qp::inverse_pivot(value) : T(1);
    });
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cuda
