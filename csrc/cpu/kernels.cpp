// The CPU path of one instruction-set level. Compiled once per level with that level's flags.

#include <algorithm>

#include "cpu/kernel_table.hpp"
#include "cpu/pack_io.hpp"
#include "qp/adjoint.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

template <class T>
inline constexpr int kWidth = kRegisterBytes / static_cast<int>(sizeof(T));

/// The two triangles of a saved factor, wherever the form keeps them: of Q or H, and of the
/// constraints' system.
template <class Scalar>
struct FactorBlocks {
  Scalar *L, *inverse_L;  ///< [np, np] [np]
  Scalar *K, *inverse_K;  ///< [stride, stride] [stride]
  int n, np, rows, stride;
  int p, pp;  ///< row i of K stands at i up to p, at i - p + pp from there on

  template <class Forms>
  FactorBlocks(const Forms& forms, const qp::Shape& s) : n(s.n), np(s.np), p(s.p), pp(s.pp) {
    if (qp::prefers_dual(s)) {
      const qp::DualFactor<Scalar>& factor = forms.dual.schur.factor;
      L = factor.L, inverse_L = factor.inverse_L, K = factor.K, inverse_K = factor.inverse_K;
      rows = s.p + s.m, stride = factor.rows;
    } else {
      L = forms.condensed.H, inverse_L = forms.condensed.inverse_H;
      K = forms.condensed.S, inverse_K = forms.condensed.inverse_S;
      rows = s.p, stride = s.pp;
    }
  }
  int at(int row) const { return row < p ? row : pp + row - p; }
  Scalar& entry(int row, int col) const { return K[int64_t{at(row)} * stride + at(col)]; }
};

/// Saves one member's factor without its padding: the tag, L [n, n], K [rows, rows].
template <class Scalar, class T>
void save_factor(const qp::Solver<Scalar>& solver, const Dims& dims, int lane, T* to) {
  std::fill(to, to + factor_size(dims), T(0));
  const qp::Shape& s = solver.data.shape;
  const auto tag = get(solver.result.factor_tag[0], lane);
  // A factor in another precision than the data's, or in units that the adjoint cannot find again,
  // is of no use to it.
  if (sizeof(T) != sizeof(Element<Scalar>) || qp::prefers_dual(s) != (tag > 0) || tag == 0) return;
  // A failed member's forms hold what its neighbours left there.
  if (!is_solved(static_cast<Status>(static_cast<int>(get(solver.result.status[0], lane))))) return;
  const FactorBlocks<Scalar> factor(solver, s);
  *to++ = static_cast<T>(tag);
  for (int i = 0; i < s.n; ++i) {
    const bool dropped = !(get(factor.inverse_L[i], lane) > 0);
    for (int j = 0; j <= i; ++j) {
      to[i * s.n + j] =
          i == j && dropped ? T(0) : static_cast<T>(get(factor.L[i * s.np + j], lane));
    }
  }
  to += int64_t{s.n} * s.n;
  for (int i = 0; i < factor.rows; ++i) {
    const bool dropped = !(get(factor.inverse_K[factor.at(i)], lane) > 0);
    for (int j = 0; j <= i; ++j) {
      const T value = static_cast<T>(get(factor.entry(i, j), lane));
      to[int64_t{i} * factor.rows + j] = i == j && dropped ? T(0) : value;
    }
  }
}

/// The inverse of save_factor for all members of a pack.
template <class Scalar, class T, int W>
void load_factor(qp::Adjoint<Scalar>& adjoint, const StridedArray<T>& from,
                 const Members<W>& members) {
  adjoint.factor_tag[0] = broadcast<Scalar>(0);
  if (from.data == nullptr || adjoint.data.shape.diagonal) return;
  const FactorBlocks<Scalar> factor(adjoint, adjoint.data.shape);
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  for (int64_t i = 0; i < int64_t{factor.np} * factor.np; ++i) factor.L[i] = zero;
  for (int64_t i = 0; i < int64_t{factor.stride} * factor.stride; ++i) factor.K[i] = zero;
  for (int i = 0; i < factor.np; ++i) factor.L[i * (factor.np + 1)] = one;
  for (int i = 0; i < factor.stride; ++i) factor.K[int64_t{i} * (factor.stride + 1)] = one;
  for (int w = 0; w < W; ++w) {
    const T* next = from.data + from.batch.offset(members.index[w]);
    const auto take = [&] {
      const T value = *next;
      next += from.row;
      return static_cast<Element<Scalar>>(value);
    };
    set(adjoint.factor_tag[0], w, take());
    for (int i = 0; i < factor.n; ++i) {
      for (int j = 0; j < factor.n; ++j) set(factor.L[i * factor.np + j], w, take());
    }
    for (int i = 0; i < factor.rows; ++i) {
      for (int j = 0; j < factor.rows; ++j) set(factor.entry(i, j), w, take());
    }
  }
  const auto invert = [&](const Scalar& pivot) {
    return select(pivot > zero, reciprocal(pivot), zero);
  };
  for (int i = 0; i < factor.np; ++i) factor.inverse_L[i] = invert(factor.L[i * (factor.np + 1)]);
  for (int i = 0; i < factor.stride; ++i) {
    factor.inverse_K[i] = invert(factor.K[int64_t{i} * (factor.stride + 1)]);
  }
}

/// Writes one member's solution. Failed members get NaN, or their last iterate with
/// Settings::best_iterate.
template <class Scalar, class T>
void write_member(const qp::Solver<Scalar>& solver, const ProblemBatch<T>& problem,
                  const Settings& settings, const SolutionBatch<T>& out, int64_t member, int lane) {
  const Dims& dims = problem.dims;
  const qp::Shape& s = solver.data.shape;
  const qp::Result<Scalar>& result = solver.result;
  const auto status = static_cast<Status>(static_cast<int>(get(result.status[0], lane)));
  const bool has_iterate = status != Status::kInvalidInput && status != Status::kNotConvex;
  const bool shown = is_solved(status) || (settings.best_iterate && has_iterate);
  const auto value = [&](const Scalar& x) {
    return shown ? static_cast<T>(get(x, lane)) : std::numeric_limits<T>::quiet_NaN();
  };
  for (int i = 0; i < s.n; ++i) out.z[member * s.n + i] = value(result.z[i]);
  for (int i = 0; i < s.p; ++i) out.nu[member * s.p + i] = value(result.nu[i]);
  for (int i = 0; i < s.m; ++i) out.lam[member * s.m + i] = value(result.lam[i]);
  // Keeps a NaN, and turns -0 into 0.
  const auto positive_part = [](T x) { return x <= T(0) ? T(0) : x; };
  for (int i = 0; i < s.n; ++i) {
    if (dims.ub) out.lam_ub[member * s.n + i] = positive_part(value(result.lam[s.mp + i]));
    if (dims.lb) out.lam_lb[member * s.n + i] = positive_part(-value(result.lam[s.mp + i]));
  }
  const int sides = s.m + (s.bounds ? s.n : 0);
  for (int i = 0; i < sides; ++i) {
    const int at = i < s.m ? i : s.mp + i - s.m;
    out.active[member * sides + i] =
        is_solved(status) ? static_cast<int8_t>(get(result.active[at], lane)) : int8_t{0};
  }
  out.status[member] = static_cast<int32_t>(status);
  out.iterations[member] = static_cast<int32_t>(get(result.iterations[0], lane));
  for (int i = 0; i < 4; ++i)
    out.residuals[member * 4 + i] = static_cast<T>(get(result.residuals[i], lane));
  if (out.factor != nullptr)
    save_factor(solver, dims, lane, out.factor + member * factor_size(dims));
}

/// Solves the members of one pack in the precision of Scalar, from data of type T.
template <class Scalar, class T, int W>
void solve_pack(const ProblemBatch<T>& problem, Settings settings, const SolutionBatch<T>& out,
                const Members<W>& members, void* workspace) {
  // The rounding of the data bounds what can be said of Q, whatever the precision of the
  // arithmetic.
  settings.convexity_tolerance =
      std::max(settings.convexity_tolerance, default_settings<T>().convexity_tolerance);
  qp::Arena<Scalar> arena{static_cast<Scalar*>(workspace)};
  const qp::Shape s = qp::Shape::of<SerialTeam, Scalar>(problem.dims);
  qp::Solver<Scalar> solver(s, settings, arena);
  constexpr double kInf = std::numeric_limits<double>::infinity();
  load_hessian(solver.data.Q, s, problem.Q, problem.dims.diagonal, members);
  load_vector(solver.data.q, s.np, problem.q, s.n, 0, members);
  load_matrix(solver.data.G, s.np, s.mp, problem.G, s.m, s.n, members);
  load_matrix(solver.data.A, s.np, s.pp, problem.A, s.p, s.n, members);
  load_vector(solver.data.b, s.pp, problem.b, s.p, 0, members);
  load_sides(solver.data.lower, s, problem.h_lower, problem.lb, -kInf, members);
  load_sides(solver.data.upper, s, problem.h, problem.ub, kInf, members);
  const bool warm = problem.z0.data != nullptr;
  if (warm) {
    load_vector(solver.warm_z, s.np, problem.z0, s.n, 0, members);
    load_vector(solver.warm_nu, s.pp, problem.nu0, s.p, 0, members);
    load_vector(solver.warm_lam, s.mp, problem.lam0, s.m, 0, members);
    if (s.bounds) {
      Scalar* lower = solver.it.best_z;  // free until the solve begins
      load_vector(lower, s.np, problem.lam_lb0, s.n, 0, members);
      load_vector(solver.warm_lam + s.mp, s.np, problem.lam_ub0, s.n, 0, members);
      for (int i = 0; i < s.np; ++i)
        solver.warm_lam[s.mp + i] = solver.warm_lam[s.mp + i] - lower[i];
    }
  }
  qp::solve(SerialTeam{}, solver, warm, out.factor != nullptr);
  for (int w = 0; w < members.count; ++w) {
    write_member(solver, problem, settings, out, members.index[w], w);
  }
}

/// A member that single precision does not solve is solved in double precision, on the same data.
bool needs_double(int32_t status) {
  return status != static_cast<int32_t>(Status::kSolved) &&
         status != static_cast<int32_t>(Status::kInvalidInput);
}

template <class T>
void solve_range(const ProblemBatch<T>& problem, const Settings& settings,
                 const SolutionBatch<T>& out, int64_t begin, int64_t end, void* workspace) {
  for (int64_t i = begin; i < end; i += kWidth<T>) {
    const int64_t stop = std::min<int64_t>(i + kWidth<T>, end);
    if (stop - i == 1) {
      solve_pack<T>(problem, settings, out, Members<1>(i, stop), workspace);
    } else {
      solve_pack<Pack<T, kWidth<T>>>(problem, settings, out, Members<kWidth<T>>(i, stop),
                                     workspace);
    }
    if constexpr (sizeof(T) == 4) {
      for (int64_t j = i; j < stop; ++j) {
        if (needs_double(out.status[j])) {
          solve_pack<double>(problem, settings, out, Members<1>(j, j + 1), workspace);
        }
      }
    }
  }
}

template <class T>
size_t solve_bytes(const Dims& dims) {
  using Wide = Pack<T, kWidth<T>>;
  const size_t wide = static_cast<size_t>(qp::solver_size<SerialTeam, Wide>(dims)) * sizeof(Wide);
  return std::max(wide,
                  static_cast<size_t>(qp::solver_size<SerialTeam, double>(dims)) * sizeof(double));
}

template <class Scalar, class T, int W>
void kkt_pack(const KktBatch<T>& system, const Members<W>& members, void* workspace) {
  qp::Arena<Scalar> arena{static_cast<Scalar*>(workspace)};
  const qp::Shape s = qp::adjoint_shape<SerialTeam, Scalar>(system.dims);
  qp::Adjoint<Scalar> adjoint(s, arena);
  load_hessian(adjoint.data.Q, s, system.Q, system.dims.diagonal, members);
  load_matrix(adjoint.data.G, s.np, s.mp, system.G, s.m, s.n, members);
  load_matrix(adjoint.data.A, s.np, s.pp, system.A, s.p, s.n, members);
  load_vector(adjoint.g_z, s.np, system.g_z, s.n, 0, members);
  load_vector(adjoint.g_nu, s.pp, system.g_nu, s.p, 0, members);
  load_vector(adjoint.g_lam, s.mp, system.g_lam, s.m, 0, members);
  load_vector(adjoint.active, s.mp, system.active, s.m, 0, members);
  if (s.bounds) {
    load_vector(adjoint.g_lam + s.mp, s.np, system.g_bound, s.n, 0, members);
    StridedArray<int8_t> bounds = system.active;
    bounds.data += s.m * bounds.row;
    load_vector(adjoint.active + s.mp, s.np, bounds, s.n, 0, members);
  }
  load_vector(adjoint.live, 1, system.status, 1, 0, members);
  adjoint.live[0] =
      select(adjoint.live[0] <= broadcast<Scalar>(1), broadcast<Scalar>(1), broadcast<Scalar>(0));
  load_factor(adjoint, system.factor, members);
  qp::solve_adjoint(SerialTeam{}, adjoint);
  for (int w = 0; w < members.count; ++w) {
    const int64_t member = members.index[w];
    const auto write = [&](T* to, int size, const Scalar* from) {
      for (int i = 0; i < size; ++i) to[member * size + i] = static_cast<T>(get(from[i], w));
    };
    write(system.d_z, s.n, adjoint.d_z);
    write(system.d_nu, s.p, adjoint.d_nu);
    write(system.d_lam, s.m, adjoint.d_lam);
    if (s.bounds) write(system.d_bound, s.n, adjoint.d_lam + s.mp);
  }
}

template <class T>
void kkt_range(const KktBatch<T>& system, int64_t begin, int64_t end, void* workspace) {
  for (int64_t i = begin; i < end; i += kWidth<T>) {
    const int64_t stop = std::min<int64_t>(i + kWidth<T>, end);
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
  return static_cast<size_t>(qp::adjoint_size<SerialTeam, Wide>(dims)) * sizeof(Wide);
}

template <class T>
constexpr Kernels<T> kKernels{kWidth<T>, solve_bytes<T>, solve_range<T>, kkt_bytes<T>,
                              kkt_range<T>};

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
