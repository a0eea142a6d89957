// What libFuzzer runs: any bytes become sizes, settings and data of a small batch, which is solved
// and differentiated through the torch-free entries. Nothing may crash, hang or touch memory that is
// not its own (the sanitizers see to that); every output is written; and a status tells the truth.
//
// `tests/fuzz` compiles this with the core for the least instruction set.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "core/status.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"

namespace {

using namespace torchqp;

constexpr int kMost = 6;  // variables, rows and members: combinations matter here, not sizes

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "solve_fuzz: %s\n", what);
  std::abort();
}

/// The input, byte by byte; zeros when it has ended.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}

  int below(int bound) { return byte() % bound; }
  bool flag() { return byte() & 1; }

  /// Mostly small integers, which meet each other; some numbers of every size and kind.
  double number() {
    const int kind = byte();
    if (kind < 200) return kind % 9 - 4;
    if (kind < 225) return (byte() - 128) / 16.0;
    if (kind < 240) return std::ldexp(byte() - 128, below(256) * 8 - 1024);
    constexpr double kInf = std::numeric_limits<double>::infinity();
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    constexpr double kSpecial[] = {kInf,   -kInf, 1e20, -1e20, 0.99e20, 1e300, -1e300, 1e-300,
                                   5e-324, -0.0,  1e-9, 1e9,   1e12,    1e-12, kNan,   0.0};
    return kSpecial[kind - 240];
  }

 private:
  uint8_t byte() { return next_ < end_ ? *next_++ : 0; }

  const uint8_t *next_, *end_;
};

template <class T>
class Batch {
 public:
  explicit Batch(Bytes& bytes) {
    dims.n = 1 + bytes.below(kMost), dims.m = bytes.below(kMost + 1), dims.p = bytes.below(4);
    dims.h_upper = dims.m > 0, dims.h_lower = dims.m > 0 && bytes.flag();
    if (dims.h_lower) dims.h_upper = bytes.flag() || !bytes.flag();
    if (dims.m > 0 && !dims.h_lower) dims.h_upper = true;
    dims.lb = bytes.flag(), dims.ub = bytes.flag(), dims.diagonal = bytes.flag();
    size = 1 + bytes.below(kMost);
    const auto fill = [&](std::vector<T>& array, int64_t entries, bool there) {
      if (!there) return;
      array.resize(size * entries);
      for (T& entry : array) entry = static_cast<T>(bytes.number());
    };
    const int64_t n = dims.n, m = dims.m, p = dims.p;
    fill(Q, dims.diagonal ? n : n * n, true);
    fill(q, n, true);
    fill(G, m * n, m > 0), fill(h_lower, m, dims.h_lower), fill(h, m, dims.h_upper);
    fill(A, p * n, p > 0), fill(b, p, p > 0);
    fill(lb, n, dims.lb), fill(ub, n, dims.ub);
    // Half of them convex: L L' of what was drawn.
    if (bytes.flag()) make_convex();
  }

  ProblemBatch<T> view() const {
    ProblemBatch<T> problem;
    problem.dims = dims, problem.size = size;
    const int64_t n = dims.n;
    problem.Q = array(Q, dims.diagonal ? 1 : n, 1, dims.diagonal ? n : n * n);
    problem.q = array(q, 1, 0, n);
    problem.G = array(G, n, 1, dims.m * n), problem.A = array(A, n, 1, dims.p * n);
    problem.h_lower = array(h_lower, 1, 0, dims.m), problem.h = array(h, 1, 0, dims.m);
    problem.b = array(b, 1, 0, dims.p);
    problem.lb = array(lb, 1, 0, n), problem.ub = array(ub, 1, 0, n);
    return problem;
  }

  template <class U>
  StridedArray<U> array(const std::vector<U>& from, int64_t row, int64_t col,
                        int64_t member) const {
    StridedArray<U> result;
    if (from.empty()) return result;
    result.data = from.data(), result.row = row, result.col = col;
    result.batch.ndim = 1, result.batch.sizes[0] = size, result.batch.strides[0] = member;
    return result;
  }

  /// Everything of member i, for whoever looks into a finding.
  void print(int64_t i) const {
    std::fprintf(stderr, "n %d, m %d, p %d, diagonal %d\n", dims.n, dims.m, dims.p, dims.diagonal);
    const auto show = [&](const char* name, const std::vector<T>& array) {
      const int64_t length = array.size() / size;
      std::fprintf(stderr, "%s", name);
      for (int64_t k = 0; k < length; ++k)
        std::fprintf(stderr, " %.17g", double(array[i * length + k]));
      std::fprintf(stderr, "\n");
    };
    show("Q", Q), show("q", q), show("G", G), show("h_lower", h_lower), show("h", h);
    show("A", A), show("b", b), show("lb", lb), show("ub", ub);
  }

  Dims dims;
  int64_t size = 0;
  std::vector<T> Q, q, G, h_lower, h, A, b, lb, ub;

 private:
  void make_convex() {
    const int n = dims.n;
    if (dims.diagonal) {
      for (T& entry : Q) entry = std::abs(entry);
      return;
    }
    for (int64_t member = 0; member < size; ++member) {
      T* mine = Q.data() + member * n * n;
      std::vector<T> product(n * n);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j)
          for (int k = 0; k < n; ++k) product[i * n + j] += mine[i * n + k] * mine[j * n + k];
      std::copy(product.begin(), product.end(), mine);
    }
  }
};

/// Scratch of exactly these bytes, so that the sanitizer knows its ends.
class Workspace {
 public:
  explicit Workspace(size_t bytes)
      : data_(::operator new (std::max<size_t>(bytes, 1), std::align_val_t{64})) {
    std::memset(data_, 0xA5, bytes);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { ::operator delete (data_, std::align_val_t{64}); }
  void* data() const { return data_; }

 private:
  void* data_;
};

/// A sum in long double, and that of its terms' sizes.
struct Sum {
  long double value = 0, all = 0;

  void add(long double term) { value += term, all += std::abs(term); }
};

/// The largest residual of member `i` relative to 1 + its largest term, in long double. What the
/// roundings of the returned numbers to T can explain is no residual, and a term is as large as it
/// may have been before them: 1e20 z_1 - 1e20 z_2 is -1e11 or 0 by the last bits of a float.
template <class T>
long double residual(const Batch<T>& batch, int64_t i, const T* z, const T* nu, const T* lam,
                     const T* lam_lb, const T* lam_ub) {
  using Real = long double;
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const Real rounding = 8 * std::numeric_limits<T>::epsilon();
  Real worst = 0, d = 0, d_size = 0, primal = 0, p_size = 0;
  const auto beyond = [&](Real error, const Sum& sum) { return error - rounding * sum.all; };
  const auto size_of = [&](const Sum& sum) { return std::abs(sum.value) + rounding * sum.all; };
  Sum quadratic, linear, support;  // whose sum is the gap
  const T* Q = batch.Q.data() + i * (batch.dims.diagonal ? n : n * n);
  const auto entry = [&](int j, int k) -> Real {
    if (batch.dims.diagonal) return j == k ? Real{Q[j]} : Real{0};
    return (Real{Q[j * n + k]} + Real{Q[k * n + j]}) / 2;
  };
  for (int j = 0; j < n; ++j) {
    Sum stationarity, Qz, At, Gt;
    for (int k = 0; k < n; ++k)
      Qz.add(entry(j, k) * z[k]), quadratic.add(entry(j, k) * z[j] * z[k]);
    for (int r = 0; r < p; ++r) At.add(Real{batch.A[(i * p + r) * n + j]} * nu[r]);
    for (int r = 0; r < m; ++r) Gt.add(Real{batch.G[(i * m + r) * n + j]} * lam[r]);
    if (lam_ub) Gt.add(lam_ub[j]);
    if (lam_lb) Gt.add(-Real{lam_lb[j]});
    const Real q = batch.q[i * n + j];
    linear.add(q * z[j]);
    stationarity.value = Qz.value + q + At.value + Gt.value;
    stationarity.all = Qz.all + std::abs(q) + At.all + Gt.all;
    d = std::max(d, beyond(std::abs(stationarity.value), stationarity));
    d_size = std::max({d_size, size_of(Qz), std::abs(q), size_of(At), size_of(Gt)});
  }
  const auto side = [&](const Sum& y, const std::vector<T>& bound, int64_t at, Real multiplier,
                        int sign) {
    if (bound.empty() || std::abs(bound[at]) >= T(kInfinity)) return;
    primal = std::max(primal, beyond(sign * (y.value - bound[at]), y));
    p_size = std::max({p_size, size_of(y), std::abs(Real{bound[at]})});
    support.add(sign * Real{bound[at]} * std::max(multiplier, Real{0}));
  };
  const auto row = [&](const std::vector<T>& matrix, int64_t r) {
    Sum y;
    for (int j = 0; j < n; ++j) y.add(Real{matrix[r * n + j]} * z[j]);
    return y;
  };
  for (int r = 0; r < p; ++r) {
    const Sum y = row(batch.A, i * p + r);
    const Real b = batch.b[i * p + r];
    primal = std::max(primal, beyond(std::abs(y.value - b), y));
    p_size = std::max({p_size, size_of(y), std::abs(b)});
    support.add(b * nu[r]);
  }
  for (int r = 0; r < m; ++r) {
    const Sum y = row(batch.G, i * m + r);
    side(y, batch.h, i * m + r, lam[r], 1), side(y, batch.h_lower, i * m + r, -lam[r], -1);
  }
  for (int j = 0; j < n; ++j) {
    Sum y;
    y.add(z[j]);
    side(y, batch.ub, i * n + j, lam_ub ? lam_ub[j] : T(0), 1);
    side(y, batch.lb, i * n + j, lam_lb ? lam_lb[j] : T(0), -1);
  }
  worst = std::max(d / (1 + d_size), primal / (1 + p_size));
  const Real gap = std::abs(quadratic.value + linear.value + support.value);
  const Real noise = rounding * (quadratic.all + linear.all + support.all);
  const Real gap_size = std::max({size_of(quadratic), size_of(linear), size_of(support)});
  return std::max(worst, (gap - noise) / (1 + gap_size));
}

template <class T>
void run(Bytes& bytes) {
  const Batch<T> batch(bytes);
  Settings settings = default_settings<T>();
  settings.polish = !bytes.flag() || bytes.flag();
  settings.best_iterate = bytes.flag();
  if (bytes.flag()) settings.max_iter = bytes.below(20);

  const Dims& dims = batch.dims;
  const int64_t size = batch.size, n = dims.n, m = dims.m, p = dims.p;
  const int64_t sides = m + (dims.bounds() ? n : 0);
  const T poison = T(-7.25e11);  // an output that was not written
  const auto output = [&](int64_t entries) { return std::vector<T>(size * entries, poison); };
  std::vector<T> z = output(n), nu = output(p), lam = output(m), lam_lb = output(dims.lb ? n : 0),
                 lam_ub = output(dims.ub ? n : 0), slack = output(m), residuals = output(4),
                 factor = output(factor_size(dims));
  std::vector<int32_t> status(size, -1), iterations(size, -1);
  std::vector<int8_t> active(size * sides, 77);
  SolutionBatch<T> out;
  out.z = z.data(), out.nu = nu.data(), out.lam = lam.data(), out.slack = slack.data();
  out.lam_lb = dims.lb ? lam_lb.data() : nullptr, out.lam_ub = dims.ub ? lam_ub.data() : nullptr;
  out.status = status.data(), out.iterations = iterations.data(), out.residuals = residuals.data();
  out.active = active.data(), out.factor = factor.data();
  {
    const Workspace workspace(cpu::solve_workspace_bytes<T>(dims));
    cpu::solve_batch(batch.view(), settings, out, 0, size, workspace.data());
  }
  for (const std::vector<T>* array : {&z, &nu, &lam, &lam_lb, &lam_ub, &slack, &residuals, &factor})
    if (std::find(array->begin(), array->end(), poison) != array->end()) fail("not written");
  for (int8_t side : active)
    if (side < -1 || side > 1) fail("active is none of -1, 0, 1");
  for (int64_t i = 0; i < size; ++i) {
    if (status[i] < 0 || status[i] > 7 || iterations[i] < 0) fail("no status");
    if (status[i] != 0) continue;
    const auto finite = [](const T* from, int64_t count) {
      return std::all_of(from, from + count, [](T x) { return std::isfinite(x); });
    };
    if (!finite(z.data() + i * n, n) || !finite(nu.data() + i * p, p) ||
        !finite(lam.data() + i * m, m) || (dims.lb && !finite(lam_lb.data() + i * n, n)) ||
        (dims.ub && !finite(lam_ub.data() + i * n, n))) {
      batch.print(i);
      fail("status 0 and not finite");
    }
    const long double error = residual(
        batch, i, z.data() + i * n, nu.data() + i * p, lam.data() + i * m,
        dims.lb ? lam_lb.data() + i * n : nullptr, dims.ub ? lam_ub.data() + i * n : nullptr);
    if (!(error <= 1.01L * settings.eps_rel)) {  // r <= eps_abs + eps_rel g
      std::fprintf(stderr, "residual %Lg, said %g %g %g %g\n", error, double(residuals[i * 4]),
                   double(residuals[i * 4 + 1]), double(residuals[i * 4 + 2]),
                   double(residuals[i * 4 + 3]));
      batch.print(i);
      fail("status 0 and not solved");
    }
  }

  std::vector<T> g(size * n), d_z = output(n), d_nu = output(p), d_lam = output(m),
                              d_bound = output(dims.bounds() ? n : 0);
  for (T& entry : g) entry = static_cast<T>(bytes.below(9) - 4);
  std::vector<int32_t> info(size, -1);
  KktBatch<T> system;
  const ProblemBatch<T> problem = batch.view();
  system.dims = dims, system.dims.lb = system.dims.ub = dims.bounds(), system.size = size;
  system.Q = problem.Q, system.G = problem.G, system.A = problem.A;
  system.active = batch.array(active, 1, 0, sides);
  system.status = batch.array(status, 1, 0, 1);
  if (bytes.flag()) system.factor = batch.array(factor, 1, 0, factor_size(dims));
  system.g_z = batch.array(g, 1, 0, n);
  system.d_z = d_z.data(), system.d_nu = d_nu.data(), system.d_lam = d_lam.data();
  system.d_bound = dims.bounds() ? d_bound.data() : nullptr, system.info = info.data();
  const Workspace workspace(cpu::kkt_workspace_bytes<T>(system.dims));
  cpu::kkt_batch(system, 0, size, workspace.data());
  for (int64_t i = 0; i < size; ++i) {
    if (info[i] != 0 && info[i] != 1) fail("no info");
    for (int64_t j = 0; j < n; ++j) {
      const T d = d_z[i * n + j];
      if (!std::isfinite(d) || d == poison) {
        batch.print(i);
        fail("a derivative that is not finite");
      }
      if (status[i] > 1 && d != T(0)) fail("a failed member has a derivative");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  if (bytes.flag()) {
    run<double>(bytes);
  } else {
    run<float>(bytes);
  }
  return 0;
}
