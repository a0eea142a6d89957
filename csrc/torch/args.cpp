#include "torch/args.hpp"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

namespace torchqp::torch_ops {
namespace {

std::string dtype_name(at::ScalarType dtype) {
  return c10::getDtypeNames(dtype).first;
}

/// Checks the arguments of one operator call; the first one fixes device and dtype.
class ArgumentChecker {
 public:
  ArgumentChecker(const char* op, const char* first_name, const Tensor& first)
      : op_(op), first_name_(first_name), first_(first) {
    TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, op,
                     ": expected ", first_name, " of dtype float32 or float64, got ",
                     dtype_name(first.scalar_type()));
  }

  /// A size that this argument defines: dimension `dim` from the end. `shape` is for the message.
  int64_t size(const char* name, const Tensor& tensor, int core_dims, int dim,
               const char* shape) const {
    TORCH_CHECK_VALUE(tensor.dim() >= core_dims, op_, ": expected ", name, " of shape ", shape,
                      ", got ", tensor.sizes());
    return tensor.size(-dim);
  }

  /// One argument (nullptr: absent) with its core shape. `dtype`: nullopt means that of the first.
  void operator()(const char* name, const Tensor* tensor, std::initializer_list<int64_t> core,
                  std::optional<at::ScalarType> dtype = std::nullopt) {
    if (tensor == nullptr) return;
    const at::ScalarType expected = dtype.value_or(first_.scalar_type());
    TORCH_CHECK_TYPE(tensor->scalar_type() == expected, op_, ": expected ", name, " of dtype ",
                     dtype_name(expected), dtype ? "" : " like ", dtype ? "" : first_name_,
                     ", got ", dtype_name(tensor->scalar_type()));
    TORCH_CHECK_VALUE(tensor->layout() == at::kStrided, op_, ": expected ", name,
                      " of layout Strided, got ", tensor->layout());
    TORCH_CHECK_VALUE(tensor->device() == first_.device(), op_, ": expected ", name, " on device ",
                      first_.device(), " like ", first_name_, ", got ", tensor->device());
    const auto core_dims = static_cast<int64_t>(core.size());
    const bool fits = tensor->dim() >= core_dims &&
                      std::equal(core.begin(), core.end(), tensor->sizes().end() - core_dims);
    TORCH_CHECK_VALUE(fits, op_, ": expected ", name, " of shape ", with_batch(core), ", got ",
                      tensor->sizes());
    broadcast(name, tensor->sizes().slice(0, tensor->dim() - core_dims));
  }

  /// The rule `condition` about which arguments come together.
  void together(bool condition, const char* message) const {
    TORCH_CHECK_VALUE(condition, op_, ": ", message);
  }

  Dims dims(int64_t n, int64_t m, int64_t p) const {
    constexpr int64_t kLimit = std::numeric_limits<int>::max();
    TORCH_CHECK_VALUE(n >= 1, op_, ": expected at least one variable, got ", first_name_,
                      " of shape ", first_.sizes());
    TORCH_CHECK_VALUE(n <= kLimit && m <= kLimit && p <= kLimit && n + m + p <= kLimit, op_,
                      ": expected n + m + p of at most ", kLimit, ", got n = ", n, ", m = ", m,
                      ", p = ", p);
    Dims dims;
    dims.n = static_cast<int>(n);
    dims.m = static_cast<int>(m);
    dims.p = static_cast<int>(p);
    return dims;
  }

  Batch batch(const Dims& dims) const {
    TORCH_CHECK_VALUE(shape_.size() <= BatchLayout::kMaxDims, op_, ": expected at most ",
                      BatchLayout::kMaxDims, " batch dimensions, got ", shape_.size());
    Batch batch{dims, shape_};
    for (int64_t size : shape_) batch.size *= size;
    return batch;
  }

 private:
  static std::string with_batch(std::initializer_list<int64_t> core) {
    std::string text = "[*";
    for (int64_t size : core) text += ", " + std::to_string(size);
    return text + "]";
  }

  void broadcast(const char* name, at::IntArrayRef leading) {
    if (leading.size() > shape_.size())
      shape_.insert(shape_.begin(), leading.size() - shape_.size(), 1);
    const size_t skipped = shape_.size() - leading.size();
    for (size_t d = 0; d < leading.size(); ++d) {
      int64_t& size = shape_[skipped + d];
      TORCH_CHECK_VALUE(leading[d] == size || leading[d] == 1 || size == 1, op_, ": expected ",
                        name, " with leading dimensions that broadcast to ",
                        at::IntArrayRef(shape_), ", got ", leading);
      if (size == 1) size = leading[d];
    }
  }

  const char* op_;
  const char* first_name_;
  const Tensor& first_;
  c10::DimVector shape_;
};

/// Where the members lie, in as few dimensions as the strides allow: offset() then stays cheap.
BatchLayout batch_layout(at::IntArrayRef sizes, at::IntArrayRef strides, const Batch& batch) {
  BatchLayout layout;
  const size_t skipped = batch.shape.size() - sizes.size();
  for (size_t d = 0; d < batch.shape.size(); ++d) {
    const int64_t size = batch.shape[d];
    const int64_t stride = d < skipped || sizes[d - skipped] == 1 ? 0 : strides[d - skipped];
    if (size == 1) continue;
    // offset() takes every other index modulo its size, so shared outermost dimensions need no
    // entry.
    if (layout.ndim == 0 && stride == 0) continue;
    const int last = layout.ndim - 1;
    if (last >= 0 && layout.strides[last] == stride * size) {
      layout.sizes[last] *= size;
      layout.strides[last] = stride;
      continue;
    }
    layout.sizes[layout.ndim] = size;
    layout.strides[layout.ndim++] = stride;
  }
  return layout;
}

/// An absent argument, and one without entries, is an array without data.
template <class T>
StridedArray<T> strided_array(const Tensor* tensor, int core_dims, const Batch& batch) {
  StridedArray<T> array;
  if (tensor == nullptr || tensor->numel() == 0 || batch.size == 0) return array;
  const int64_t leading = tensor->dim() - core_dims;
  array.data = tensor->const_data_ptr<T>();
  if (core_dims >= 1) array.row = tensor->stride(leading);
  if (core_dims == 2) array.col = tensor->stride(leading + 1);
  array.batch =
      batch_layout(tensor->sizes().slice(0, leading), tensor->strides().slice(0, leading), batch);
  return array;
}

Dims check_problem(ArgumentChecker& check, const SolveTensors& t) {
  const Tensor *G = given(t.G), *h_lower = given(t.h_lower), *h = given(t.h), *A = given(t.A),
               *b = given(t.b);
  const Tensor *lb = given(t.lb), *ub = given(t.ub), *z0 = given(t.z0);
  const Tensor *nu0 = given(t.nu0), *lam0 = given(t.lam0), *lam_lb0 = given(t.lam_lb0),
               *lam_ub0 = given(t.lam_ub0);

  const int64_t n =
      check.size("Q", t.Q, t.diagonal ? 1 : 2, 1, t.diagonal ? "[*, n]" : "[*, n, n]");
  const int64_t m = G ? check.size("G", *G, 2, 2, "[*, m, n]") : 0;
  const int64_t p = A ? check.size("A", *A, 2, 2, "[*, p, n]") : 0;
  if (t.diagonal) {
    check("Q", &t.Q, {n});
  } else {
    check("Q", &t.Q, {n, n});
  }
  check("q", &t.q, {n});
  check("G", G, {m, n});
  check.together(G == nullptr || h != nullptr || h_lower != nullptr,
                 "expected h or h_lower with G, got neither");
  check.together(G != nullptr || h == nullptr, "expected G with h, got None");
  check.together(G != nullptr || h_lower == nullptr, "expected G with h_lower, got None");
  check("h_lower", h_lower, {m});
  check("h", h, {m});
  check("A", A, {p, n});
  check.together(A == nullptr || b != nullptr, "expected b with A, got None");
  check.together(A != nullptr || b == nullptr, "expected A with b, got None");
  check("b", b, {p});
  check("lb", lb, {n});
  check("ub", ub, {n});
  // A multiplier of an absent argument may be given with no entries, as solve returns it.
  check("z0", z0, {n});
  check("nu0", nu0, {p});
  check("lam0", lam0, {m});
  check("lam_lb0", lam_lb0, {lb ? n : 0});
  check("lam_ub0", lam_ub0, {ub ? n : 0});
  const bool started = z0 != nullptr;
  check.together(started || !(nu0 || lam0 || lam_lb0 || lam_ub0),
                 "expected z0 with starting multipliers, got None");
  check.together(!started || A == nullptr || nu0 != nullptr,
                 "expected nu0 with z0 and A, got None");
  check.together(!started || G == nullptr || lam0 != nullptr,
                 "expected lam0 with z0 and G, got None");
  check.together(!started || lb == nullptr || lam_lb0 != nullptr,
                 "expected lam_lb0 with z0 and lb, got None");
  check.together(!started || ub == nullptr || lam_ub0 != nullptr,
                 "expected lam_ub0 with z0 and ub, got None");

  Dims dims = check.dims(n, m, p);
  dims.h_lower = h_lower != nullptr;
  dims.h_upper = h != nullptr;
  dims.lb = lb != nullptr;
  dims.ub = ub != nullptr;
  dims.diagonal = t.diagonal;
  return dims;
}

Dims check_system(ArgumentChecker& check, const KktTensors& t) {
  const Tensor *G = given(t.G), *A = given(t.A), *factor = given(t.factor);
  const int64_t n =
      check.size("Q", t.Q, t.diagonal ? 1 : 2, 1, t.diagonal ? "[*, n]" : "[*, n, n]");
  const int64_t m = G ? check.size("G", *G, 2, 2, "[*, m, n]") : 0;
  const int64_t p = A ? check.size("A", *A, 2, 2, "[*, p, n]") : 0;
  const int64_t sides = check.size("active", t.active, 1, 1, "[*, m] or [*, m + n]");
  const bool bounds = sides != m;
  if (t.diagonal) {
    check("Q", &t.Q, {n});
  } else {
    check("Q", &t.Q, {n, n});
  }
  check("G", G, {m, n});
  check("A", A, {p, n});
  check("active", &t.active, {bounds ? m + n : m}, at::kChar);
  check("status", &t.status, {}, at::kInt);
  check("g_z", &t.g_z, {n});
  check("g_nu", given(t.g_nu), {p});
  check("g_lam", given(t.g_lam), {m});
  check("g_bound", given(t.g_bound), {bounds ? n : 0});

  Dims dims = check.dims(n, m, p);
  dims.h_upper = G != nullptr;
  dims.lb = dims.ub = bounds;
  dims.diagonal = t.diagonal;
  if (factor != nullptr && check.size("factor", *factor, 1, 1, "[*, factor_size]") != 0) {
    check("factor", factor, {factor_size(dims)});
  } else {
    check("factor", factor, {0});
  }
  return dims;
}

}  // namespace

Batch check_solve(const SolveTensors& tensors) {
  ArgumentChecker check("solve_qp", "Q", tensors.Q);
  const Dims dims = check_problem(check, tensors);
  return check.batch(dims);
}

Batch check_lpgd(const SolveTensors& problem, const LpgdTensors& t) {
  ArgumentChecker check("lpgd", "Q", problem.Q);
  const Dims dims = check_problem(check, problem);
  check("status", &t.status, {}, at::kInt);
  check("g_z", given(t.g_z), {dims.n});
  check("g_nu", given(t.g_nu), {dims.p});
  check("g_lam", given(t.g_lam), {dims.m});
  check("g_lb", given(t.g_lb), {dims.lb ? dims.n : 0});
  check("g_ub", given(t.g_ub), {dims.ub ? dims.n : 0});
  return check.batch(dims);
}

Batch check_kkt(const KktTensors& tensors) {
  ArgumentChecker check("kkt_solve", "Q", tensors.Q);
  const Dims dims = check_system(check, tensors);
  return check.batch(dims);
}

Batch check_kkt_gradients(const KktTensors& system, const SolutionTensors& t) {
  ArgumentChecker check("kkt_gradients", "Q", system.Q);
  const Dims dims = check_system(check, system);
  check("z", &t.z, {dims.n});
  check("nu", &t.nu, {dims.p});
  check("lam", &t.lam, {dims.m});
  check("g_slack", given(t.g_slack), {dims.m});
  return check.batch(dims);
}

Batch check_gradients(const GradientTensors& t) {
  ArgumentChecker check("parameter_gradients", "z", t.z);
  const int64_t n = check.size("z", t.z, 1, 1, "[*, n]");
  const int64_t m = check.size("lam", t.lam, 1, 1, "[*, m]");
  const int64_t p = check.size("nu", t.nu, 1, 1, "[*, p]");
  const bool bounds = check.size("active", t.active, 1, 1, "[*, m] or [*, m + n]") != m;
  check("z", &t.z, {n});
  check("nu", &t.nu, {p});
  check("lam", &t.lam, {m});
  check("d_z", &t.d_z, {n});
  check("d_nu", &t.d_nu, {p});
  check("d_lam", &t.d_lam, {m});
  check("d_bound", given(t.d_bound), {bounds ? n : 0});
  check("g_slack", given(t.g_slack), {m});
  check("active", &t.active, {bounds ? m + n : m}, at::kChar);
  check("status", &t.status, {}, at::kInt);

  Dims dims = check.dims(n, m, p);
  dims.lb = dims.ub = bounds;
  dims.diagonal = t.diagonal;
  return check.batch(dims);
}

Settings check_settings(std::string_view backward, double eps_abs, double eps_rel, int64_t max_iter,
                        bool polish, bool best_iterate) {
  TORCH_CHECK_VALUE(backward == "kkt" || backward == "smoothed" || backward == "lpgd",
                    "solve_qp: expected backward 'kkt', 'smoothed' or 'lpgd', got '", backward,
                    "'");
  constexpr int64_t kLimit = std::numeric_limits<int>::max();
  TORCH_CHECK_VALUE(max_iter <= kLimit, "solve_qp: expected max_iter of at most ", kLimit, ", got ",
                    max_iter);
  Settings settings;
  settings.eps_abs = eps_abs;
  settings.eps_rel = eps_rel;
  settings.max_iter = static_cast<int>(std::max<int64_t>(max_iter, -1));
  settings.polish = polish;
  settings.best_iterate = best_iterate;
  const char* problem = validate(settings);
  TORCH_CHECK_VALUE(problem == nullptr, "solve_qp: ", problem, ", got eps_abs = ", eps_abs,
                    ", eps_rel = ", eps_rel, ", max_iter = ", max_iter);
  return settings;
}

void check_lpgd_options(double tau, int64_t side, double rho) {
  TORCH_CHECK_VALUE(tau > 0 && std::isfinite(tau), "lpgd: expected tau positive and finite, got ",
                    tau);
  TORCH_CHECK_VALUE(side >= 0 && side <= 2, "lpgd: expected side 0, 1 or 2, got ", side);
  TORCH_CHECK_VALUE(rho >= 0 && std::isfinite(rho), "lpgd: expected rho >= 0 and finite, got ",
                    rho);
}

template <class T>
ProblemBatch<T> problem_batch(const SolveTensors& t, const Batch& batch) {
  const auto matrix = [&](const Tensor* tensor) { return strided_array<T>(tensor, 2, batch); };
  const auto vector = [&](const Tensor* tensor) { return strided_array<T>(tensor, 1, batch); };
  ProblemBatch<T> problem;
  problem.dims = batch.dims;
  problem.size = batch.size;
  problem.Q = t.diagonal ? vector(&t.Q) : matrix(&t.Q);
  problem.q = vector(&t.q);
  problem.G = matrix(given(t.G));
  problem.h_lower = vector(given(t.h_lower));
  problem.h = vector(given(t.h));
  problem.A = matrix(given(t.A));
  problem.b = vector(given(t.b));
  problem.lb = vector(given(t.lb));
  problem.ub = vector(given(t.ub));
  problem.z0 = vector(given(t.z0));
  problem.nu0 = vector(given(t.nu0));
  problem.lam0 = vector(given(t.lam0));
  problem.lam_lb0 = vector(given(t.lam_lb0));
  problem.lam_ub0 = vector(given(t.lam_ub0));
  return problem;
}

template <class T>
LpgdBatch<T> lpgd_batch(const SolveTensors& problem, const LpgdTensors& t, const Batch& batch) {
  const auto vector = [&](const Tensor* tensor) { return strided_array<T>(tensor, 1, batch); };
  const ProblemBatch<T> data = problem_batch<T>(problem, batch);
  LpgdBatch<T> lpgd;
  lpgd.dims = data.dims;
  lpgd.size = data.size;
  lpgd.q = data.q, lpgd.h_lower = data.h_lower, lpgd.h = data.h, lpgd.b = data.b;
  lpgd.lb = data.lb, lpgd.ub = data.ub;
  lpgd.g_z = vector(given(t.g_z));
  lpgd.g_nu = vector(given(t.g_nu));
  lpgd.g_lam = vector(given(t.g_lam));
  lpgd.g_lb = vector(given(t.g_lb));
  lpgd.g_ub = vector(given(t.g_ub));
  return lpgd;
}

template <class T>
KktBatch<T> kkt_batch(const KktTensors& t, const Batch& batch) {
  const auto vector = [&](const Tensor* tensor) { return strided_array<T>(tensor, 1, batch); };
  KktBatch<T> system;
  system.dims = batch.dims;
  system.size = batch.size;
  system.Q = strided_array<T>(&t.Q, t.diagonal ? 1 : 2, batch);
  system.G = strided_array<T>(given(t.G), 2, batch);
  system.A = strided_array<T>(given(t.A), 2, batch);
  system.active = strided_array<int8_t>(&t.active, 1, batch);
  system.status = strided_array<int32_t>(&t.status, 0, batch);
  system.factor = vector(given(t.factor));
  system.g_z = vector(&t.g_z);
  system.g_nu = vector(given(t.g_nu));
  system.g_lam = vector(given(t.g_lam));
  system.g_bound = vector(given(t.g_bound));
  return system;
}

template ProblemBatch<float> problem_batch(const SolveTensors&, const Batch&);
template ProblemBatch<double> problem_batch(const SolveTensors&, const Batch&);
template LpgdBatch<float> lpgd_batch(const SolveTensors&, const LpgdTensors&, const Batch&);
template LpgdBatch<double> lpgd_batch(const SolveTensors&, const LpgdTensors&, const Batch&);
template KktBatch<float> kkt_batch(const KktTensors&, const Batch&);
template KktBatch<double> kkt_batch(const KktTensors&, const Batch&);

}  // namespace torchqp::torch_ops
