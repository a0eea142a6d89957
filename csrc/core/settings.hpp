#pragma once
// What a caller may choose about a solve.

#include <cmath>

namespace torchqp {

/// Stopping rule and policies of one solve. Residuals are measured on the caller's (unscaled) data.
///
/// A residual r with reference size g (the largest term it is made of, infinity norm) is accepted
/// when r <= eps_abs + eps_rel * g, for stationarity, primal feasibility, sign of the multipliers
/// and duality gap alike.
struct Settings {
  double eps_abs = 1e-8;  ///< in the units of each residual
  double eps_rel = 1e-8;  ///< relative to the largest term of each residual
  int max_iter = 100;     ///< iterations or rounds of pivoting, in each form that is tried
  bool polish =
      true;  ///< end with a solve on the active set, which sharpens the solution and its gradient
  bool best_iterate = false;  ///< a failed member returns its last finite iterate instead of NaN
  /// Share of Q's largest entry by which an eigenvalue may be negative before Q counts as not
  /// convex: rounding of the data.
  double convexity_tolerance = 1e-9;
  /// Whether a warm start's active set is likely to be the solution's, and worth trying before
  /// anything is formed that others need; else pivoting begins with it.
  bool near_start = true;
};

/// Defaults per precision of the data: tolerances 1e-8 in double, 1e-4 in float.
template <class T>
constexpr Settings default_settings() {
  Settings settings;
  if (sizeof(T) == 4) {
    settings.eps_abs = settings.eps_rel = 1e-4;
    settings.convexity_tolerance = 1e-5;
  }
  return settings;
}

/// The rounding of data of type T bounds what can be said of Q, whatever the precision of the
/// arithmetic.
template <class T>
constexpr Settings with_data_precision(Settings settings) {
  const double least = default_settings<T>().convexity_tolerance;
  if (settings.convexity_tolerance < least) settings.convexity_tolerance = least;
  return settings;
}

/// nullptr when the settings are usable, else a message naming the field, what is expected and what
/// was given is the caller's to add.
inline const char* validate(const Settings& settings) {
  if (!(settings.eps_abs >= 0) || !std::isfinite(settings.eps_abs))
    return "eps_abs: expected a finite number >= 0";
  if (!(settings.eps_rel >= 0) || !std::isfinite(settings.eps_rel))
    return "eps_rel: expected a finite number >= 0";
  if (!(settings.convexity_tolerance >= 0)) return "convexity_tolerance: expected a number >= 0";
  if (settings.max_iter < 0) return "max_iter: expected an integer >= 0";
  return nullptr;
}

}  // namespace torchqp
