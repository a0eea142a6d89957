#pragma once
// Random convex QPs as a caller would hand them over, and an independent judge of their solutions.

#include <cstdint>
#include <string>
#include <vector>

#include "core/problem.hpp"
#include "core/settings.hpp"
#include "core/status.hpp"

namespace torchqp::support {

/// A batch of problems that owns its data: contiguous, batch first, row-major. Absent arguments are
/// empty vectors.
template <class T>
struct QpBatch {
  Dims dims;
  int64_t size = 0;
  std::vector<T> Q, q, G, h_lower, h, A, b, lb, ub;
  std::vector<T> z0, nu0, lam0, lam_lb0, lam_ub0;

  ProblemBatch<T> view() const;
  /// The batch of these members, in this order.
  QpBatch pick(const std::vector<int64_t>& members) const;
};

/// What a family of random problems looks like.
struct Family {
  const char* name;
  int n, m, p;
  bool h_lower, h_upper, lb, ub, diagonal;
  bool singular;  ///< Q of rank n / 2, or zero where it is diagonal: the constraints make z unique
  double infinite;    ///< share of one-sided rows and bounds among the two-sided
  double equalities;  ///< share of rows and bounds whose sides coincide
};

/// Every combination of arguments that takes a path of its own, small sizes.
const std::vector<Family>& families();

/// Feasible, bounded problems of one family; member i depends on seed and i alone.
template <class T>
QpBatch<T> random_batch(const Family& family, int64_t size, unsigned seed);

/// Eight small problems of equal dimensions, most of which fail, each in its own way; with bounds
/// or with rows only. `expected` is what each must come to.
template <class T>
struct TroubledBatch {
  QpBatch<T> batch;
  std::vector<Status> expected;
};
template <class T>
TroubledBatch<T> troubled_batch(bool bounds);

/// Outputs of a batch, poisoned, with guards before and after each array.
template <class T>
class QpSolutions {
 public:
  QpSolutions(const Dims& dims, int64_t size, bool with_factor);

  SolutionBatch<T> view();

  /// Everything that member i got, as doubles: for comparison bit by bit.
  std::vector<double> member(int64_t i) const;

  /// True while nothing was written outside the arrays.
  bool intact() const;

  /// True while member i is as it was made: poisoned.
  bool untouched(int64_t i) const;

  Status status(int64_t i) const { return static_cast<Status>(status_[guard_ + i]); }
  int iterations(int64_t i) const { return iterations_[guard_ + i]; }
  const T* z(int64_t i) const { return at(z_, i, dims_.n); }
  const T* nu(int64_t i) const { return at(nu_, i, dims_.p); }
  const T* lam(int64_t i) const { return at(lam_, i, dims_.m); }
  const T* lam_lb(int64_t i) const { return dims_.lb ? at(lam_lb_, i, dims_.n) : nullptr; }
  const T* lam_ub(int64_t i) const { return dims_.ub ? at(lam_ub_, i, dims_.n) : nullptr; }
  const T* slack(int64_t i) const { return at(slack_, i, dims_.m); }
  const T* residuals(int64_t i) const { return at(residuals_, i, 4); }
  const int8_t* active(int64_t i) const { return active_.data() + guard_ + i * active_size(); }
  const T* factor(int64_t i) const { return at(factor_, i, factor_size(dims_)); }
  int64_t active_size() const { return dims_.m + (dims_.bounds() ? dims_.n : 0); }

 private:
  static constexpr int64_t guard_ = 16;  // entries before and after each array

  const T* at(const std::vector<T>& array, int64_t i, int64_t length) const {
    return array.data() + guard_ + i * length;
  }

  Dims dims_;
  int64_t size_;
  bool with_factor_;
  std::vector<T> z_, nu_, lam_, lam_lb_, lam_ub_, slack_, residuals_, factor_;
  std::vector<int32_t> status_, iterations_;
  std::vector<int8_t> active_;
};

/// The four residuals of a point and the largest term of each, from the definitions, in long
/// double.
struct Verdict {
  long double stationarity = 0, primal = 0, dual_sign = 0, gap = 0;
  long double stationarity_reference = 0, primal_reference = 0, dual_sign_reference = 0,
              gap_reference = 0;
  long double complementarity = 0;  ///< largest |multiplier * slack| over all sides

  /// r / (1 + reference): stationarity, primal, dual sign, gap.
  std::vector<long double> relative() const;
  /// Largest of r / (eps_abs + eps_rel reference).
  long double merit(double eps_abs, double eps_rel) const;
};

template <class T>
Verdict judge(const QpBatch<T>& batch, const QpSolutions<T>& solutions, int64_t member);

}  // namespace torchqp::support
