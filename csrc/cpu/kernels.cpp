// The CPU path of one instruction-set level. Compiled once per level with that level's flags.

#include <algorithm>
#include <optional>

#include "cpu/factor_io.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/kkt_pack.hpp"
#include "cpu/pack_io.hpp"
#include "cpu/sum_gradients.hpp"
#include "cpu/write_gradients.hpp"
#include "qp/member_order.hpp"
#include "qp/written.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace {

/// Variables or rows of the largest problems that are solved in packs.
inline constexpr int kLargestPacked = 160;

/// Problems that are solved in one register: from some size on a pack of matrices leaves the cache,
/// and one problem at a time, vectorised along its rows, is faster.
template <class T>
int members_per_pack(const Dims& dims) {
  if (keeps_diagonal(dims)) return kWidth<T>;  // there is no matrix
  return std::max(dims.n, dims.m + dims.p) > kLargestPacked ? 1 : kWidth<T>;
}

/// Writes the solutions of a pack. Failed members get NaN, or their last iterate with
/// Settings::best_iterate.
template <class Scalar, class T, int W>
void write_members(const qp::Solver<Scalar>& solver, const ProblemBatch<T>& problem,
                   const Settings& settings, const SolutionBatch<T>& out,
                   const Members<W>& members) {
  const Dims& dims = problem.dims;
  const qp::Shape& s = solver.data.shape;
  const qp::Result<Scalar>& result = solver.result;
  const Scalar zero = broadcast<Scalar>(0);
  const Scalar nan = broadcast<Scalar>(std::numeric_limits<double>::quiet_NaN());
  const auto held = qp::held_by<T>(s, result.z, result.nu, result.lam);
  const Scalar ended = qp::written_status(result, held);
  const auto solved = ended <= broadcast<Scalar>(1);
  auto shown = solved;
  if (settings.best_iterate) {
    const auto is = [&](Status status) {
      return ended == broadcast<Scalar>(static_cast<int>(status));
    };
    shown = both(held, negate(either(is(Status::kInvalidInput), is(Status::kNotConvex))));
  }
  const auto write = [&](T* to, int size, const auto& value) {
    if (to == nullptr || size == 0) return;
    write_vector(to, size, members, [&](int64_t i) { return select(shown, value(i), nan); });
  };
  // Keeps a NaN, and turns -0 into 0.
  const auto positive_part = [&](Scalar x) { return select(x <= zero, zero, x); };
  write(out.z, s.n, [&](int i) { return result.z[i]; });
  write(out.nu, s.p, [&](int i) { return result.nu[i]; });
  write(out.lam, s.m, [&](int i) { return result.lam[i]; });
  if (dims.ub) write(out.lam_ub, s.n, [&](int i) { return positive_part(result.lam[s.mp + i]); });
  if (dims.lb) write(out.lam_lb, s.n, [&](int i) { return positive_part(-result.lam[s.mp + i]); });
  write(out.slack, s.m, [&](int i) { return result.slack[i]; });
  write_vector(out.active, s.m + (s.bounds ? s.n : 0), members, [&](int64_t i) {
    return select(solved, result.active[i < s.m ? i : s.mp + i - s.m], zero);
  });
  for (int w = 0; w < members.count; ++w) {
    const int64_t member = members.index[w];
    out.status[member] = static_cast<int32_t>(get(ended, w));
    out.iterations[member] = static_cast<int32_t>(get(result.iterations[0], w));
    for (int i = 0; i < 4; ++i)
      out.residuals[member * 4 + i] = static_cast<T>(get(result.residuals[i], w));
  }
  if (out.factor != nullptr) save_factor(solver, dims, members, out.factor);
}

/// Solves packs of members in the precision of Scalar, from data of type T, one after the other.
/// What was formed of Q, G and A is used again as long as they stay the same.
template <class Scalar, class T>
class PackSolver {
  static constexpr int kMembers = width_v<Scalar>;

 public:
  PackSolver(const ProblemBatch<T>& problem, Settings settings, const SolutionBatch<T>& out,
             const qp::MemberOrder& order, void* workspace)
      : problem_(problem),
        settings_(with_data_precision<T>(settings)),
        out_(out),
        arena_{static_cast<Scalar*>(workspace)},
        again_(order.repeats()),
        solver_(qp::Shape::of<SerialTeam, Scalar>(problem.dims), settings_, arena_) {}

  void run(const Members<kMembers>& members) {
    const qp::Shape& s = solver_.data.shape;
    if (left_ != qp::Prepared::kNothing && !same_matrices(members)) left_ = qp::Prepared::kNothing;
    if (left_ == qp::Prepared::kNothing) load_matrices(members);
    constexpr double kInf = std::numeric_limits<double>::infinity();
    // Vectors that a form works on are scaled in place; the direct method leaves them as they are.
    const bool untouched = left_ != qp::Prepared::kNothing && qp::has_single_row(s);
    const auto is_new = [&](const auto&... arrays) {
      return !untouched || !(same_as_last(arrays, members) && ...);
    };
    load_vector(solver_.data.q, s.np, problem_.q, s.n, 0, members);
    if (is_new(problem_.b)) load_vector(solver_.data.b, s.pp, problem_.b, s.p, 0, members);
    if (is_new(problem_.h_lower, problem_.lb))
      load_sides(solver_.data.lower, s, problem_.h_lower, problem_.lb, -kInf, members);
    if (is_new(problem_.h, problem_.ub))
      load_sides(solver_.data.upper, s, problem_.h, problem_.ub, kInf, members);
    last_ = members;
    prefetch_next(problem_.q, s.n, members, problem_.size, kPrefetched);
    prefetch_matrices(problem_, members);
    const bool warm = problem_.z0.data != nullptr;
    if (warm) load_start(members);
    left_ = qp::solve(SerialTeam{}, solver_, warm, left_, again_, out_.factor != nullptr);
    write_members(solver_, problem_, settings_, out_, members);
  }

 private:
  bool same_as_last(const StridedArray<T>& array, const Members<kMembers>& members) const {
    for (int w = 0; w < kMembers; ++w) {
      if (array.batch.offset(members.index[w]) != array.batch.offset(last_.index[w])) return false;
    }
    return true;
  }

  bool same_matrices(const Members<kMembers>& members) const {
    return same_as_last(problem_.Q, members) && same_as_last(problem_.G, members) &&
           same_as_last(problem_.A, members);
  }

  void load_matrices(const Members<kMembers>& members) {
    const qp::Shape& s = solver_.data.shape;
    load_hessian(solver_.data.Q, s, problem_.Q, problem_.dims.diagonal, members);
    load_matrix(solver_.data.G, s.np, s.mp, problem_.G, s.m, s.n, members);
    load_matrix(solver_.data.A, s.np, s.pp, problem_.A, s.p, s.n, members);
  }

  void load_start(const Members<kMembers>& members) {
    const qp::Shape& s = solver_.data.shape;
    load_vector(solver_.warm_z, s.np, problem_.z0, s.n, 0, members);
    load_vector(solver_.warm_nu, s.pp, problem_.nu0, s.p, 0, members);
    load_vector(solver_.warm_lam, s.mp, problem_.lam0, s.m, 0, members);
    if (!s.bounds) return;
    Scalar* lower = solver_.it.best_z;  // free until the solve begins
    load_vector(lower, s.np, problem_.lam_lb0, s.n, 0, members);
    load_vector(solver_.warm_lam + s.mp, s.np, problem_.lam_ub0, s.n, 0, members);
    for (int i = 0; i < s.np; ++i)
      solver_.warm_lam[s.mp + i] = solver_.warm_lam[s.mp + i] - lower[i];
  }

  const ProblemBatch<T>& problem_;
  Settings settings_;
  const SolutionBatch<T>& out_;
  qp::Arena<Scalar> arena_;
  bool again_;  ///< the next members have the same matrices, as a rule
  qp::Solver<Scalar> solver_;
  Members<kMembers> last_{0, 1};
  qp::Prepared left_ = qp::Prepared::kNothing;
};

/// Solves packs and single members in one workspace, which serves whichever of the two is alive.
template <class Element, class T>
class RunSolver {
  static constexpr int kMembers = kWidth<Element>;
  using Wide = Pack<Element, kMembers>;

 public:
  RunSolver(const ProblemBatch<T>& problem, const Settings& settings, const SolutionBatch<T>& out,
            const qp::MemberOrder& order, void* workspace)
      : problem_(problem), settings_(settings), out_(out), order_(order), workspace_(workspace) {}

  /// Solves the first of `listed`, at most a pack of them. Returns how many.
  int run(std::span<const int64_t> listed) {
    const Members<kMembers> members(listed);
    if (members.count == 1) {
      packs_.reset();
      if (!singles_) singles_.emplace(problem_, settings_, out_, order_, workspace_);
      singles_->run(Members<1>(listed));
    } else {
      singles_.reset();
      if (!packs_) packs_.emplace(problem_, settings_, out_, order_, workspace_);
      packs_->run(members);
    }
    return members.count;
  }

  /// Leaves the workspace to others.
  void reset() { packs_.reset(), singles_.reset(); }

 private:
  const ProblemBatch<T>& problem_;
  const Settings& settings_;
  const SolutionBatch<T>& out_;
  const qp::MemberOrder& order_;
  void* workspace_;
  std::optional<PackSolver<Wide, T>> packs_;
  std::optional<PackSolver<Element, T>> singles_;
};

template <class T>
void solve_range(const ProblemBatch<T>& problem, const Settings& settings,
                 const SolutionBatch<T>& out, int64_t begin, int64_t end, void* workspace) {
  const qp::MemberOrder order(problem, members_per_pack<T>(problem.dims));
  const bool skips = sizeof(T) == 4 && skips_single(problem.dims);
  RunSolver<T, T> native(problem, settings, out, order, workspace);
  RunSolver<double, T> twice(problem, settings, out, order, workspace);  // float's second try
  for (int64_t place = begin; place < end;) {
    const auto [member, length] = order.run(place, end);
    place += length;
    int64_t open[kWidth<T>] = {member};
    for (int64_t i = 1; i < length; ++i) open[i] = member + i;
    int64_t* last = open + length;
    if (!skips) {
      twice.reset();
      native.run({open, last});
    }
    if constexpr (sizeof(T) == 4) {
      const auto solved = [&](int64_t i) { return !needs_double(out.status[i]); };
      if (!skips) last = std::remove_if(open, last, solved);
      if (open == last) continue;
      native.reset();
      for (int64_t* next = open; next < last;) next += twice.run({next, last});
    }
  }
}

template <class T>
size_t solve_bytes(const Dims& dims) {
  using Wide = Pack<T, kWidth<T>>;
  const auto bytes = [&](auto scalar) {
    return static_cast<size_t>(qp::solver_size<SerialTeam, decltype(scalar)>(dims)) *
           sizeof(scalar);
  };
  const size_t single = std::max(bytes(T()), bytes(double()));
  if (members_per_pack<T>(dims) == 1) return single;
  return std::max({single, bytes(Wide()), bytes(Pack<double, kWidth<double>>())});
}

template <class T>
void kkt_range(const KktBatch<T>& system, int64_t begin, int64_t end, void* workspace) {
  const int width = members_per_pack<T>(system.dims);
  for (int64_t i = begin; i < end; i += width) {
    const int64_t stop = std::min<int64_t>(i + width, end);
    if (stop - i == 1) {
      kkt_pack<T>(system, Members<1>(i, stop), workspace);
    } else {
      kkt_pack<Pack<T, kWidth<T>>>(system, Members<kWidth<T>>(i, stop), workspace);
    }
  }
}

template <class T>
size_t kkt_bytes(const Dims& dims) {
  using Wide = Pack<T, kWidth<T>>;
  const auto bytes = [&](auto scalar) {
    return static_cast<size_t>(kkt_pack_size<decltype(scalar)>(dims)) * sizeof(scalar);
  };
  return members_per_pack<T>(dims) == 1 ? bytes(T()) : std::max(bytes(T()), bytes(Wide()));
}

template <class T>
void gradient_range(const GradientBatch<T>& batch, int64_t begin, int64_t end) {
  write_gradients<kWidth<T>>(batch, begin, end);
  sum_gradients(batch, begin, end);
}

template <class T>
constexpr Kernels<T> kKernels{kWidth<T>,    members_per_pack<T>, solve_bytes<T>,   solve_range<T>,
                              kkt_bytes<T>, kkt_range<T>,        gradient_range<T>};

}  // namespace
TORCHQP_END_ISA_NAMESPACE

#define TORCHQP_JOIN_(a, b) a##b
#define TORCHQP_JOIN(a, b) TORCHQP_JOIN_(a, b)
#define TORCHQP_STRING_(a) #a
#define TORCHQP_STRING(a) TORCHQP_STRING_(a)

const KernelTable& TORCHQP_JOIN(kernels_, TORCHQP_ISA_NAMESPACE)() {
  static constexpr KernelTable table{TORCHQP_STRING(TORCHQP_ISA_NAMESPACE), kKernels<float>,
                                     kKernels<double>};
  return table;
}

}  // namespace torchqp::cpu
