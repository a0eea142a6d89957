#pragma once
// One team's part of a batch: member after member from the caller's arrays to the caller's arrays.
// The body of the solve kernel; tests run it on emulated lanes.

#include "cuda/member_io.hpp"
#include "qp/member_order.hpp"
#include "qp/saved_factor.hpp"
#include "qp/written.hpp"

namespace torchqp::cuda {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Solves members in the precision of Scalar from data of type T. What was formed of Q, G and A is
/// used again while they stay the same.
///
/// The object lies in memory that all lanes of its team see.
template <class Scalar, class T>
struct MemberSolver {
  qp::Solver<Scalar> solver;
  int64_t last = -1;  ///< the member whose matrices are loaded
  qp::Prepared left = qp::Prepared::kNothing;

  TORCHQP_HD MemberSolver(const qp::Shape& shape, const Settings& settings,
                          qp::Arena<Scalar>& arena)
      : solver(shape, settings, arena) {}

  /// Team: every lane calls with equal arguments; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void run(const Team& team, const ProblemBatch<T>& problem,
                           const SolutionBatch<T>& out, bool again, int64_t member) {
    const qp::Shape& s = solver.data.shape;
    qp::Prepared prepared = left;
    if (prepared != qp::Prepared::kNothing && !same_matrices(problem, member))
      prepared = qp::Prepared::kNothing;
    if (prepared == qp::Prepared::kNothing) load_matrices(team, problem, member);
    constexpr double kInf = std::numeric_limits<double>::infinity();
    load_vector(team, solver.data.q, s.np, problem.q, s.n, 0, member);
    load_vector(team, solver.data.b, s.pp, problem.b, s.p, 0, member);
    load_sides(team, solver.data.lower, s, problem.h_lower, problem.lb, -kInf, member);
    load_sides(team, solver.data.upper, s, problem.h, problem.ub, kInf, member);
    const bool warm = problem.z0.data != nullptr;
    if (warm) load_start(team, problem, member);
    team.template sync<Site::kLoad>();
    prepared = qp::solve(team, solver, warm, prepared, again, out.factor != nullptr);
    write(team, problem.dims, out, member);
    team.single([&] { left = prepared, last = member; });
    team.template sync<Site::kStore>();
  }

  /// Team: every lane calls; ends without a sync.
  template <class Team>
  TORCHQP_HD_CALL void load_matrices(const Team& team, const ProblemBatch<T>& problem,
                                     int64_t member) const {
    const qp::Shape& s = solver.data.shape;
    load_hessian(team, solver.data.Q, s, problem.Q, problem.dims.diagonal, member);
    load_matrix(team, solver.data.G, s.np, s.mp, problem.G, s.m, s.n, member);
    load_matrix(team, solver.data.A, s.np, s.pp, problem.A, s.p, s.n, member);
  }

 private:
  TORCHQP_HD bool same_matrices(const ProblemBatch<T>& problem, int64_t member) const {
    const auto same = [&](const StridedArray<T>& array) {
      return array.batch.offset(member) == array.batch.offset(last);
    };
    return same(problem.Q) && same(problem.G) && same(problem.A);
  }

  template <class Team>
  TORCHQP_HD_CALL void load_start(const Team& team, const ProblemBatch<T>& problem,
                                  int64_t member) const {
    const qp::Shape& s = solver.data.shape;
    load_vector(team, solver.warm_z, s.np, problem.z0, s.n, 0, member);
    load_vector(team, solver.warm_nu, s.pp, problem.nu0, s.p, 0, member);
    load_vector(team, solver.warm_lam, s.mp, problem.lam0, s.m, 0, member);
    if (!s.bounds) return;
    Scalar* lower = solver.it.best_z;  // free until the solve begins
    Scalar* net = solver.warm_lam + s.mp;
    load_vector(team, lower, s.np, problem.lam_lb0, s.n, 0, member);
    load_vector(team, net, s.np, problem.lam_ub0, s.n, 0, member);
    team.for_each(s.np, [&](int i) { net[i] = net[i] - lower[i]; });  // each lane what it loaded
  }

  /// Failed members get NaN, or their last iterate with Settings::best_iterate.
  template <class Team>
  TORCHQP_HD_CALL void write(const Team& team, const Dims& dims, const SolutionBatch<T>& out,
                             int64_t member) const {
    const qp::Shape& s = solver.data.shape;
    const qp::Result<Scalar>& result = solver.result;
    const Scalar zero = broadcast<Scalar>(0);
    const T nan = std::numeric_limits<T>::quiet_NaN();
    const bool held = qp::held_by<T>(s, result.z, result.nu, result.lam);
    const Scalar ended = qp::written_status(result, held);
    const auto status = static_cast<Status>(static_cast<int32_t>(ended));
    const bool solved = is_solved(status);
    const bool shown = solver.settings.best_iterate
                           ? held && status != Status::kInvalidInput && status != Status::kNotConvex
                           : solved;
    const auto put = [&](T* to, int size, const auto& value) {
      if (to == nullptr) return;
      T* mine = to + member * size;
      team.for_each(size, [&](int i) { mine[i] = shown ? static_cast<T>(value(i)) : nan; });
    };
    // Keeps a NaN, and turns -0 into 0.
    const auto positive_part = [&](Scalar x) { return select(x <= zero, zero, x); };
    put(out.z, s.n, [&](int i) { return result.z[i]; });
    put(out.nu, s.p, [&](int i) { return result.nu[i]; });
    put(out.lam, s.m, [&](int i) { return result.lam[i]; });
    if (dims.ub) put(out.lam_ub, s.n, [&](int i) { return positive_part(result.lam[s.mp + i]); });
    if (dims.lb) put(out.lam_lb, s.n, [&](int i) { return positive_part(-result.lam[s.mp + i]); });
    put(out.slack, s.m, [&](int i) { return result.slack[i]; });
    const int sides = s.m + (s.bounds ? s.n : 0);
    int8_t* active = out.active + member * sides;
    team.for_each(sides, [&](int i) {
      const int at = i < s.m ? i : s.mp + i - s.m;
      active[i] = solved ? static_cast<int8_t>(result.active[at]) : int8_t{0};
    });
    team.for_each(
        4, [&](int i) { out.residuals[member * 4 + i] = static_cast<T>(result.residuals[i]); });
    team.single([&] {
      out.status[member] = static_cast<int32_t>(status);
      out.iterations[member] = static_cast<int32_t>(result.iterations[0]);
    });
    if (out.factor != nullptr) save_factor(team, dims, out.factor + member * factor_size(dims));
  }

  template <class Team>
  TORCHQP_HD_CALL void save_factor(const Team& team, const Dims& dims, T* to) const {
    const bool kept = sizeof(T) == sizeof(Scalar) && qp::keeps_factor(solver);
    if (!kept) {
      const int64_t size = factor_size(dims);
      for (int64_t i = team.lane(); i < size; i += team.size()) to[i] = T(0);
      return;
    }
    const qp::FactorBlocks<Scalar> factor(team, solver, solver.data.shape);
    team.single([&] { to[0] = static_cast<T>(solver.result.factor_tag[0]); });
    team.for_each(factor.n * factor.n, [&](int at) {
      const int i = at / factor.n, j = at - i * factor.n;
      if (j <= i) to[1 + i * (i + 1) / 2 + j] = static_cast<T>(factor.saved_L(i, j));
    });
    T* K = to + 1 + factor.n * (factor.n + 1) / 2;
    const int rows = factor.capacity;
    team.for_each(rows * rows, [&](int at) {
      const int i = at / rows, j = at - i * rows;
      if (j > i) return;
      K[i * (i + 1) / 2 + j] = i < factor.length ? static_cast<T>(factor.saved_K(i, j)) : T(0);
    });
  }
};

/// The groups that one team solves: first, first + step, ..., so many of them at most. See MemberOrder:
/// a group is the members that follow each other with the same matrices.
struct GroupShare {
  int64_t first, step;
  int64_t rounds = INT64_MAX;
};

/// Solves a share of the batch.
///
///   in  retry  only the members that needs_double names, or all where single precision was skipped
///   in  pace   called before each group, equally often by all teams of the launch
///
/// Team: every lane calls with equal arguments; ends with a sync.
template <class Team, class Scalar, class T, class Pace>
TORCHQP_HD_CALL void solve_groups(const Team& team, MemberSolver<Scalar, T>& members,
                                  const ProblemBatch<T>& problem, const SolutionBatch<T>& out,
                                  bool retry, const GroupShare& share, Pace pace) {
  const auto times = [&] { return qp::MemberOrder(problem, 1).times(); };
  for (int64_t round = 0; round < share.rounds && round * share.step * times() < problem.size;
       ++round) {
    pace();
    for (int64_t t = 0; t < times(); ++t) {
      // All of it anew for each member: little is then kept across the call of the solver.
      const qp::MemberOrder order(problem, 1);
      const int64_t place = (round * share.step + share.first) * order.times() + t;
      if (place >= problem.size) break;
      const int64_t member = order.run(place, problem.size).member;
      if (retry && !skips_single(problem.dims) && !needs_double(out.status[member])) continue;
      members.run(team, problem, out, order.repeats() && !retry, member);
    }
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cuda
