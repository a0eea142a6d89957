#pragma once
// Batches of linearised KKT systems that own their data.

#include <cmath>
#include <vector>

#include "cpu/run_batch.hpp"
#include "support/packed.hpp"

namespace torchqp::cpu {

using support::QpBatch;
using support::QpSolutions;

template <class T>
StridedArray<T> rows_of(const std::vector<T>& values, int64_t length) {
  StridedArray<T> array;
  static const T nothing{};
  array.data = values.empty() ? &nothing : values.data();
  array.row = 1;
  array.batch.ndim = 1;
  array.batch.sizes[0] = length == 0 ? 1 : static_cast<int64_t>(values.size()) / length;
  array.batch.strides[0] = length;
  return array;
}

/// Solutions of a batch, right-hand sides for its linearised systems, and their answers.
template <class T>
struct Systems {
  QpBatch<T> batch;
  Dims dims;  ///< as kkt_batch wants them
  std::vector<int32_t> status;
  std::vector<int8_t> active;
  std::vector<T> factor;
  std::vector<T> g_z, g_nu, g_lam, g_bound;
  std::vector<T> d_z, d_nu, d_lam, d_bound;
  std::vector<int32_t> info;

  Systems(const QpBatch<T>& problems, unsigned seed) : batch(problems), dims(problems.dims) {
    const QpSolutions<T> solutions = solve_all(batch, default_settings<T>(), true);
    dims.lb = dims.ub = dims.bounds();
    for (int64_t i = 0; i < batch.size; ++i) {
      status.push_back(static_cast<int32_t>(solutions.status(i)));
      active.insert(active.end(), solutions.active(i), solutions.active(i) + sides());
      factor.insert(factor.end(), solutions.factor(i), solutions.factor(i) + factor_size(dims));
    }
    const auto draw = [&](std::vector<T>& to, int length, unsigned offset) {
      for (const std::vector<T>& one :
           support::random_problems<T>(static_cast<int>(batch.size), length, seed + offset))
        to.insert(to.end(), one.begin(), one.end());
    };
    draw(g_z, dims.n, 0), draw(g_nu, dims.p, 1000), draw(g_lam, dims.m, 2000);
    draw(g_bound, dims.bounds() ? dims.n : 0, 3000);
  }

  int sides() const { return dims.m + (dims.bounds() ? dims.n : 0); }

  KktBatch<T> view(bool with_factor) {
    const auto make = [&](std::vector<T>& array, int64_t length) {
      array.resize(batch.size * length);
      support::poison(array.data(), array.size());
    };
    make(d_z, dims.n), make(d_nu, dims.p), make(d_lam, dims.m);
    make(d_bound, dims.bounds() ? dims.n : 0);
    info.assign(batch.size, -1);
    const ProblemBatch<T> problem = batch.view();
    KktBatch<T> system;
    system.dims = dims, system.size = batch.size;
    system.Q = problem.Q, system.G = problem.G, system.A = problem.A;
    system.active = rows_of(active, sides());
    system.status = rows_of(status, 1);
    if (with_factor) system.factor = rows_of(factor, factor_size(dims));
    system.g_z = rows_of(g_z, dims.n), system.g_nu = rows_of(g_nu, dims.p);
    system.g_lam = rows_of(g_lam, dims.m);
    if (dims.bounds()) system.g_bound = rows_of(g_bound, dims.n);
    system.d_z = d_z.data(), system.d_nu = d_nu.data(), system.d_lam = d_lam.data();
    if (dims.bounds()) system.d_bound = d_bound.data();
    system.info = info.data();
    return system;
  }

  void solve_range(const KktBatch<T>& system, int64_t begin, int64_t end,
                   unsigned char fill = 0xA5) {
    support::Scratch scratch;
    const size_t bytes = kkt_workspace_bytes<T>(dims);
    auto* workspace = scratch.get<unsigned char>(bytes);
    std::memset(workspace, fill, bytes);
    const int64_t before = support::allocations();
    kkt_batch(system, begin, end, workspace);
    EXPECT_EQ(support::allocations(), before);
    EXPECT_TRUE(scratch.intact());
  }

  void solve(bool with_factor) { solve_range(view(with_factor), 0, batch.size); }

  /// d_z, d_nu, d_lam, d_bound, info of one member.
  std::vector<double> answer(int64_t i) const {
    std::vector<double> result;
    const auto append = [&](const std::vector<T>& from, int64_t length) {
      for (int64_t k = 0; k < length; ++k) result.push_back(from[i * length + k]);
    };
    append(d_z, dims.n), append(d_nu, dims.p), append(d_lam, dims.m);
    append(d_bound, dims.bounds() ? dims.n : 0);
    result.push_back(info[i] < 0 ? NAN : info[i]);  // as the poison of the others
    return result;
  }

  /// Largest entry of K d + g over the system of member i, relative to the largest term in it; and
  /// whether d is zero on every inactive side.
  long double residual(int64_t i, bool* inactive_zero) const {
    using Real = long double;
    const int n = dims.n, m = dims.m, p = dims.p;
    const T* Q = batch.Q.data() + i * (dims.diagonal ? n : int64_t{n} * n);
    const T *G = batch.G.data() + i * m * n, *A = batch.A.data() + i * p * n;
    const int8_t* held = active.data() + i * sides();
    const T *z = d_z.data() + i * n, *nu = d_nu.data() + i * p, *lam = d_lam.data() + i * m;
    const T* bound = dims.bounds() ? d_bound.data() + i * n : nullptr;
    Real error = 0, size = 0;
    const auto row = [&](std::initializer_list<Real> terms) {
      Real sum = 0;
      for (Real term : terms) sum += term, size = std::max(size, std::abs(term));
      if (!(std::abs(sum) <= error)) error = std::abs(sum);
    };
    const auto column = [](const T* a, int j) { return a == nullptr ? a : a + j; };
    const auto product = [&](const T* a, const T* x, int count, int stride) {
      Real sum = 0;
      for (int k = 0; k < count; ++k) sum += Real(a[k * stride]) * x[k];
      return sum;
    };
    for (int r = 0; r < n; ++r) {
      Real Qz = 0;
      for (int c = 0; c < n && !dims.diagonal; ++c)
        Qz += (Real(Q[r * n + c]) + Q[c * n + r]) / 2 * z[c];
      if (dims.diagonal) Qz = Real(Q[r]) * z[r];
      row({Qz, product(column(A, r), nu, p, n), product(column(G, r), lam, m, n),
           bound == nullptr ? 0 : Real(bound[r]), Real(g_z[i * n + r])});
    }
    for (int r = 0; r < p; ++r) row({product(A + r * n, z, n, 1), Real(g_nu[i * p + r])});
    *inactive_zero = true;
    for (int r = 0; r < m; ++r) {
      if (held[r] != 0) row({product(G + r * n, z, n, 1), Real(g_lam[i * m + r])});
      if (held[r] == 0 && lam[r] != 0) *inactive_zero = false;
    }
    for (int j = 0; bound != nullptr && j < n; ++j) {
      if (held[m + j] != 0) row({Real(z[j]), Real(g_bound[i * n + j])});
      if (held[m + j] == 0 && bound[j] != 0) *inactive_zero = false;
    }
    return error / size;
  }
};

}  // namespace torchqp::cpu
