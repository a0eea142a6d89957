#include "support/qp.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "support/scratch.hpp"

namespace torchqp::support {
namespace {

template <class T>
StridedArray<T> contiguous(const std::vector<T>& values, int64_t batch, int64_t rows, int64_t cols,
                           bool present) {
  StridedArray<T> array;
  if (!present) return array;
  static const T nothing{};
  array.data = values.empty() ? &nothing : values.data();
  array.row = cols;
  array.col = 1;
  array.batch.ndim = 1;
  array.batch.sizes[0] = batch;
  array.batch.strides[0] = rows * cols;
  return array;
}

constexpr double kInfinite = std::numeric_limits<double>::infinity();

}  // namespace

template <class T>
ProblemBatch<T> QpBatch<T>::view() const {
  const int n = dims.n, m = dims.m, p = dims.p;
  ProblemBatch<T> problem;
  problem.dims = dims;
  problem.size = size;
  problem.Q = contiguous(Q, size, n, dims.diagonal ? 1 : n, true);
  problem.q = contiguous(q, size, n, 1, true);
  problem.G = contiguous(G, size, m, n, m > 0);
  problem.h_lower = contiguous(h_lower, size, m, 1, dims.h_lower);
  problem.h = contiguous(h, size, m, 1, dims.h_upper);
  problem.A = contiguous(A, size, p, n, p > 0);
  problem.b = contiguous(b, size, p, 1, p > 0);
  problem.lb = contiguous(lb, size, n, 1, dims.lb);
  problem.ub = contiguous(ub, size, n, 1, dims.ub);
  problem.z0 = contiguous(z0, size, n, 1, !z0.empty());
  problem.nu0 = contiguous(nu0, size, p, 1, !nu0.empty());
  problem.lam0 = contiguous(lam0, size, m, 1, !lam0.empty());
  problem.lam_lb0 = contiguous(lam_lb0, size, n, 1, !lam_lb0.empty());
  problem.lam_ub0 = contiguous(lam_ub0, size, n, 1, !lam_ub0.empty());
  return problem;
}

template <class T>
QpBatch<T> QpBatch<T>::pick(const std::vector<int64_t>& members) const {
  QpBatch result;
  result.dims = dims;
  result.size = static_cast<int64_t>(members.size());
  const auto copy = [&](const std::vector<T>& from, std::vector<T>& to) {
    const int64_t length = static_cast<int64_t>(from.size()) / size;
    for (int64_t i : members)
      to.insert(to.end(), from.begin() + i * length, from.begin() + (i + 1) * length);
  };
  copy(Q, result.Q), copy(q, result.q), copy(G, result.G), copy(h_lower, result.h_lower);
  copy(h, result.h), copy(A, result.A), copy(b, result.b), copy(lb, result.lb), copy(ub, result.ub);
  copy(z0, result.z0), copy(nu0, result.nu0), copy(lam0, result.lam0);
  copy(lam_lb0, result.lam_lb0), copy(lam_ub0, result.lam_ub0);
  return result;
}

const std::vector<Family>& families() {
  // name, n, m, p, h_lower, h, lb, ub, diagonal, singular, infinite, equalities
  static const std::vector<Family> all = {
      {"unconstrained", 5, 0, 0, false, false, false, false, false, false, 0, 0},
      {"one variable", 1, 1, 0, false, true, false, false, false, false, 0, 0},
      {"equalities only", 7, 0, 3, false, false, false, false, false, false, 0, 0},
      {"rows", 6, 9, 0, false, true, false, false, false, false, 0, 0},
      {"rows and equalities", 8, 7, 3, false, true, false, false, false, false, 0, 0},
      {"lower rows", 5, 6, 1, true, false, false, false, false, false, 0, 0},
      {"two-sided rows", 6, 8, 2, true, true, false, false, false, false, 0.3, 0.2},
      {"many rows", 4, 33, 0, false, true, false, false, false, false, 0, 0},
      {"bounds only", 9, 0, 0, false, false, true, true, false, false, 0.3, 0.1},
      {"lower bounds", 6, 0, 1, false, false, true, false, false, false, 0.2, 0},
      {"upper bounds", 6, 2, 0, false, true, false, true, false, false, 0.2, 0},
      {"everything", 7, 6, 2, true, true, true, true, false, false, 0.3, 0.1},
      {"diagonal", 8, 3, 1, false, true, true, true, true, false, 0, 0},
      {"simplex", 9, 0, 1, false, false, true, false, true, false, 0, 0},
      {"box", 7, 0, 0, false, false, true, true, true, false, 0.3, 0.1},
      {"knapsack", 10, 0, 1, false, false, true, true, true, false, 0.3, 0.1},
      {"two-sided knapsack", 5, 1, 0, true, true, true, false, true, false, 0.2, 0},
      {"diagonal rows", 6, 5, 2, false, true, false, false, true, false, 0, 0},
      {"singular", 8, 12, 2, false, true, true, true, false, true, 0, 0},
      {"linear program", 6, 7, 2, false, true, true, true, true, true, 0, 0},
  };
  return all;
}

template <class T>
QpBatch<T> random_batch(const Family& family, int64_t size, unsigned seed) {
  const int n = family.n, m = family.m, p = family.p;
  QpBatch<T> batch;
  batch.dims.n = n, batch.dims.m = m, batch.dims.p = p;
  batch.dims.h_lower = family.h_lower, batch.dims.h_upper = family.h_upper;
  batch.dims.lb = family.lb, batch.dims.ub = family.ub;
  batch.dims.diagonal = family.diagonal;
  batch.size = size;
  for (int64_t i = 0; i < size; ++i) {
    std::mt19937 generator(seed + 1000003u * static_cast<unsigned>(i));
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    const auto draw = [&](size_t count) {
      std::vector<T> values(count);
      for (T& value : values) value = static_cast<T>(normal(generator));
      return values;
    };
    const auto append = [](std::vector<T>& to, const std::vector<T>& values) {
      to.insert(to.end(), values.begin(), values.end());
    };

    if (family.diagonal) {
      for (int j = 0; j < n; ++j)
        batch.Q.push_back(family.singular ? T(0) : static_cast<T>(0.1 + uniform(generator)));
    } else {
      const int rank = family.singular ? n / 2 : n;
      const std::vector<T> X = draw(n * rank);
      for (int r = 0; r < n; ++r)
        for (int c = 0; c < n; ++c) {
          double sum = r == c && !family.singular ? 0.1 : 0.0;
          for (int k = 0; k < rank; ++k) sum += double(X[r * rank + k]) * X[c * rank + k];
          batch.Q.push_back(static_cast<T>(sum));
        }
    }
    append(batch.q, draw(n));
    const std::vector<T> inside = draw(n), A = draw(p * n), G = draw(m * n);
    append(batch.A, A);
    append(batch.G, G);
    for (int r = 0; r < p; ++r) {
      double sum = 0;
      for (int j = 0; j < n; ++j) sum += double(A[r * n + j]) * inside[j];
      batch.b.push_back(static_cast<T>(sum));
    }
    // Both sides of an interval around `value`, which keeps the problem feasible.
    const auto sides = [&](double value, bool has_lower, bool has_upper, std::vector<T>& lower,
                           std::vector<T>& upper) {
      double below = value - uniform(generator), above = value + uniform(generator);
      const double kind = uniform(generator), which = uniform(generator);
      if (has_lower && has_upper && kind < family.equalities) below = above = value;
      const bool drop = kind > 1 - family.infinite;
      if (drop && which < 0.5) above = kInfinite;
      if (drop && which >= 0.5) below = -kInfinite;
      if (has_lower) lower.push_back(static_cast<T>(below));
      if (has_upper) upper.push_back(static_cast<T>(above));
    };
    for (int r = 0; r < m; ++r) {
      double sum = 0;
      for (int j = 0; j < n; ++j) sum += double(G[r * n + j]) * inside[j];
      sides(sum, family.h_lower, family.h_upper, batch.h_lower, batch.h);
    }
    if (family.lb || family.ub)
      for (int j = 0; j < n; ++j) sides(inside[j], family.lb, family.ub, batch.lb, batch.ub);
  }
  return batch;
}

template <class T>
TroubledBatch<T> troubled_batch(bool bounds) {
  const Family family = {"troubled", 3, 4, 1, true, true, bounds, bounds, false, false, 0, 0};
  TroubledBatch<T> result{random_batch<T>(family, 8, 77), std::vector<Status>(8, Status::kSolved)};
  QpBatch<T>& batch = result.batch;
  const int n = family.n, m = family.m;
  const T infinity = static_cast<T>(kInfinite);
  const auto row = [&](int64_t i, int r) { return batch.G.data() + (i * m + r) * n; };

  // Member 0 is well.
  // Member 1: z_0 <= -1 and z_0 >= 1, by two rows.
  for (int r : {0, 1}) std::fill_n(row(1, r), n, T(0)), row(1, r)[0] = r == 0 ? T(1) : T(-1);
  for (int r : {0, 1}) batch.h[1 * m + r] = -1, batch.h_lower[1 * m + r] = -infinity;
  result.expected[1] = Status::kPrimalInfeasible;
  // Member 2: the objective falls along z_0, which nothing limits from above.
  std::fill_n(batch.Q.data() + 2 * n * n, n * n, T(0));
  for (int j = 0; j < n; ++j) batch.q[2 * n + j] = j == 0 ? T(-1) : T(0);
  for (int r = 0; r < m; ++r)
    row(2, r)[0] = 0, batch.h_lower[2 * m + r] = -1, batch.h[2 * m + r] = 1;
  batch.A[2 * n] = 0;
  batch.b[2] = 0;
  for (int j = 0; j < n && bounds; ++j) batch.lb[2 * n + j] = -1, batch.ub[2 * n + j] = 1;
  if (bounds) batch.ub[2 * n] = infinity;
  result.expected[2] = Status::kDualInfeasible;
  // Member 3: not a number.
  batch.q[3 * n + 1] = std::numeric_limits<T>::quiet_NaN();
  result.expected[3] = Status::kInvalidInput;
  // Member 4: a negative eigenvalue.
  std::fill_n(batch.Q.data() + 4 * n * n, n * n, T(0));
  for (int j = 0; j < n; ++j) batch.Q[4 * n * n + j * n + j] = j == 1 ? T(-1) : T(1);
  result.expected[4] = Status::kNotConvex;
  // Member 5: an upper side at minus infinity.
  batch.h[5 * m + 2] = batch.h_lower[5 * m + 2] = -infinity;
  result.expected[5] = Status::kPrimalInfeasible;
  // Member 6: an infinite coefficient.
  batch.G[6 * m * n + 4] = infinity;
  result.expected[6] = Status::kInvalidInput;
  // Member 7: the sides of a row cross.
  std::swap(batch.h[7 * m + 1], batch.h_lower[7 * m + 1]);
  result.expected[7] = Status::kInvalidInput;
  return result;
}

template <class T>
QpSolutions<T>::QpSolutions(const Dims& dims, int64_t size, bool with_factor)
    : dims_(dims), size_(size), with_factor_(with_factor) {
  const auto make = [&](auto& array, int64_t length) {
    array.resize(size * length + 2 * guard_);
    poison(array.data(), array.size());
  };
  make(z_, dims.n), make(nu_, dims.p), make(lam_, dims.m);
  make(lam_lb_, dims.lb ? dims.n : 0), make(lam_ub_, dims.ub ? dims.n : 0);
  make(slack_, dims.m), make(residuals_, 4);
  make(factor_, with_factor ? factor_size(dims) : 0);
  make(status_, 1), make(iterations_, 1), make(active_, active_size());
}

template <class T>
SolutionBatch<T> QpSolutions<T>::view() {
  SolutionBatch<T> solution;
  solution.z = z_.data() + guard_;
  solution.nu = nu_.data() + guard_;
  solution.lam = lam_.data() + guard_;
  if (dims_.lb) solution.lam_lb = lam_lb_.data() + guard_;
  if (dims_.ub) solution.lam_ub = lam_ub_.data() + guard_;
  solution.slack = slack_.data() + guard_;
  solution.residuals = residuals_.data() + guard_;
  if (with_factor_) solution.factor = factor_.data() + guard_;
  solution.status = status_.data() + guard_;
  solution.iterations = iterations_.data() + guard_;
  solution.active = active_.data() + guard_;
  return solution;
}

template <class T>
std::vector<double> QpSolutions<T>::member(int64_t i) const {
  std::vector<double> result;
  const auto append = [&](const auto& array) {
    const int64_t length = (int64_t(array.size()) - 2 * guard_) / size_;
    for (int64_t k = 0; k < length; ++k)
      result.push_back(static_cast<double>(array[guard_ + i * length + k]));
  };
  append(z_), append(nu_), append(lam_), append(lam_lb_), append(lam_ub_), append(slack_);
  append(residuals_), append(factor_), append(status_), append(iterations_), append(active_);
  return result;
}

namespace {

/// True when entries [begin, end) still hold their poison.
template <class V>
bool poisoned(const std::vector<V>& array, int64_t begin, int64_t end) {
  V fresh;
  poison(&fresh, 1);
  for (int64_t k = begin; k < end; ++k)
    if (std::memcmp(&array[k], &fresh, sizeof fresh) != 0) return false;
  return true;
}

}  // namespace

template <class T>
bool QpSolutions<T>::intact() const {
  const auto guards = [&](const auto& array) {
    const int64_t size = static_cast<int64_t>(array.size());
    return poisoned(array, 0, guard_) && poisoned(array, size - guard_, size);
  };
  return guards(z_) && guards(nu_) && guards(lam_) && guards(lam_lb_) && guards(lam_ub_) &&
         guards(slack_) && guards(residuals_) && guards(factor_) && guards(status_) &&
         guards(iterations_) && guards(active_);
}

template <class T>
bool QpSolutions<T>::untouched(int64_t i) const {
  const auto fresh = [&](const auto& array) {
    const int64_t length = (int64_t(array.size()) - 2 * guard_) / size_;
    return poisoned(array, guard_ + i * length, guard_ + (i + 1) * length);
  };
  return fresh(z_) && fresh(nu_) && fresh(lam_) && fresh(lam_lb_) && fresh(lam_ub_) &&
         fresh(slack_) && fresh(residuals_) && fresh(factor_) && fresh(status_) &&
         fresh(iterations_) && fresh(active_);
}

std::vector<long double> Verdict::relative() const {
  return {stationarity / (1 + stationarity_reference), primal / (1 + primal_reference),
          dual_sign / (1 + dual_sign_reference), gap / (1 + gap_reference)};
}

long double Verdict::merit(double eps_abs, double eps_rel) const {
  return std::max({stationarity / (eps_abs + eps_rel * stationarity_reference),
                   primal / (eps_abs + eps_rel * primal_reference),
                   dual_sign / (eps_abs + eps_rel * dual_sign_reference),
                   gap / (eps_abs + eps_rel * gap_reference)});
}

template <class T>
Verdict judge(const QpBatch<T>& batch, const QpSolutions<T>& solutions, int64_t member) {
  using Real = long double;
  const Dims& dims = batch.dims;
  const int n = dims.n, m = dims.m, p = dims.p;
  const auto of = [&](const std::vector<T>& values, int64_t length) {
    return values.empty() ? nullptr : values.data() + member * length;
  };
  const T* Q = of(batch.Q, dims.diagonal ? n : int64_t{n} * n);
  const T *q = of(batch.q, n), *G = of(batch.G, int64_t{m} * n), *A = of(batch.A, int64_t{p} * n);
  const T *b = of(batch.b, p), *h = of(batch.h, m), *h_lower = of(batch.h_lower, m);
  const T *lb = of(batch.lb, n), *ub = of(batch.ub, n);
  const T *z = solutions.z(member), *nu = solutions.nu(member), *lam = solutions.lam(member);
  const T *lam_lb = solutions.lam_lb(member), *lam_ub = solutions.lam_ub(member);

  Verdict verdict;
  const auto raise = [](Real& to, Real value) {
    if (!(std::abs(value) <= to)) to = std::abs(value);  // a NaN stays
  };
  Real quadratic = 0, linear = 0, support = 0;
  for (int i = 0; i < n; ++i) {
    Real Qz = 0, Atnu = 0, Ctlam = 0;
    if (dims.diagonal) Qz = Real(Q[i]) * z[i];
    for (int j = 0; j < n && !dims.diagonal; ++j)
      Qz += (Real(Q[i * n + j]) + Q[j * n + i]) / 2 * z[j];
    for (int r = 0; r < p; ++r) Atnu += Real(A[r * n + i]) * nu[r];
    for (int r = 0; r < m; ++r) Ctlam += Real(G[r * n + i]) * lam[r];
    if (lam_ub != nullptr) Ctlam += lam_ub[i];
    if (lam_lb != nullptr) Ctlam -= lam_lb[i];
    raise(verdict.stationarity, Qz + q[i] + Atnu + Ctlam);
    for (Real term : {Qz, Real(q[i]), Atnu, Ctlam}) raise(verdict.stationarity_reference, term);
    quadratic += z[i] * Qz;
    linear += Real(q[i]) * z[i];
  }
  for (int r = 0; r < p; ++r) {
    Real Az = 0;
    for (int j = 0; j < n; ++j) Az += Real(A[r * n + j]) * z[j];
    raise(verdict.primal, Az - b[r]);
    raise(verdict.primal_reference, Az);
    raise(verdict.primal_reference, b[r]);
    support += Real(b[r]) * nu[r];
  }
  // One side sign * (value - bound) <= 0 with its multiplier >= 0.
  const auto side = [&](Real sign, Real value, Real bound, Real multiplier) {
    if (std::abs(bound) >= kInfinity) {
      raise(verdict.stationarity, multiplier == 0 ? 0 : kInfinite);  // must be exactly zero
      return;
    }
    raise(verdict.primal, std::max(sign * (value - bound), Real(0)));
    raise(verdict.primal_reference, value);
    raise(verdict.primal_reference, bound);
    raise(verdict.dual_sign, std::max(-multiplier, Real(0)));
    raise(verdict.dual_sign_reference, multiplier);
    raise(verdict.complementarity, multiplier * (value - bound));
    support += sign * bound * multiplier;
  };
  for (int r = 0; r < m; ++r) {
    Real Gz = 0;
    for (int j = 0; j < n; ++j) Gz += Real(G[r * n + j]) * z[j];
    // The net multiplier belongs to the upper side where positive, to the lower where negative; a
    // row with one side has no other to give it to.
    const bool upper = h != nullptr && std::abs(h[r]) < kInfinity;
    const bool lower = h_lower != nullptr && std::abs(h_lower[r]) < kInfinity;
    const Real to_upper = lower ? std::max(Real(lam[r]), Real(0)) : Real(lam[r]);
    if (h != nullptr) side(1, Gz, h[r], upper ? to_upper : (lower ? 0 : Real(lam[r])));
    const Real to_lower = upper ? std::max(-Real(lam[r]), Real(0)) : -Real(lam[r]);
    if (h_lower != nullptr) side(-1, Gz, h_lower[r], lower ? to_lower : 0);
  }
  for (int i = 0; i < n; ++i) {
    if (ub != nullptr) side(1, z[i], ub[i], lam_ub[i]);
    if (lb != nullptr) side(-1, z[i], lb[i], lam_lb[i]);
  }
  verdict.gap = std::abs(quadratic + linear + support);
  for (Real term : {quadratic, linear, support}) raise(verdict.gap_reference, term);
  return verdict;
}

template struct QpBatch<float>;
template struct QpBatch<double>;
template TroubledBatch<float> troubled_batch<float>(bool);
template TroubledBatch<double> troubled_batch<double>(bool);
template class QpSolutions<float>;
template class QpSolutions<double>;
template QpBatch<float> random_batch<float>(const Family&, int64_t, unsigned);
template QpBatch<double> random_batch<double>(const Family&, int64_t, unsigned);
template Verdict judge(const QpBatch<float>&, const QpSolutions<float>&, int64_t);
template Verdict judge(const QpBatch<double>&, const QpSolutions<double>&, int64_t);

}  // namespace torchqp::support
