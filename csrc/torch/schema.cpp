// The operators of libtorchqp_ops. Kernels: ops_cpu.cpp. What other backends say: unsupported.cpp.
// Fake kernels, autocast and derivative rules: python/torchqp/_ops.py. Derivatives for LibTorch
// programs and eager calls: autograd.cpp, lpgd_autograd.cpp.

#include <torch/library.h>

#include "torch/backward_watch.hpp"

TORCH_LIBRARY(torchqp, m) {
  m.set_python_module("torchqp._ops");

  // A batch of convex QPs. The leading dimensions of all tensors broadcast to the batch shape [*];
  // none is copied.
  //
  //   z* = argmin 1/2 z'Qz + q'z   s.t.  Az = b,  h_lower <= Gz <= h,  lb <= z <= ub
  //
  //   in   Q           [*, n, n], or [*, n] when `diagonal`; enters as (Q + Q')/2
  //   in   q, lb, ub   [*, n]
  //   in   G           [*, m, n] with h_lower, h [*, m], one or both
  //   in   A           [*, p, n] with b [*, p]
  //   in   z0, nu0, lam0, lam_lb0, lam_ub0: where to start, shaped like the outputs; all or none
  //
  //   out  z           [*, n]
  //   out  nu, lam     [*, p], [*, m]; signs are in core/problem.hpp
  //   out  lam_lb      [*, n], or [*, 0] without lb; lam_ub likewise
  //   out  slack       [*, m] h - G z, +inf where there is no upper side
  //   out  status      [*] int32, core/status.hpp
  //   out  iterations  [*] int32
  //   out  residuals   [*, 4] stationarity, primal, dual sign, gap
  //   out  active      [*, m (+ n with lb or ub)] int8, rows then bounds: +1 the upper side holds,
  //                    -1 the lower side, 0 neither
  //   out  factor      [*, factor_size] for kkt_solve when `save_factor`, else [*, 0]
  //
  // Outputs are fresh and contiguous. `backward` and `backward_options` choose the derivative rule
  // and do not change the solution. `near_start`: as in core/settings.hpp; lpgd solves without it.
  m.def(
      "solve(Tensor Q, Tensor q, Tensor? G, Tensor? h_lower, Tensor? h, Tensor? A, Tensor? b,"
      " Tensor? lb, Tensor? ub,"
      " Tensor? z0, Tensor? nu0, Tensor? lam0, Tensor? lam_lb0, Tensor? lam_ub0,"
      " bool diagonal, str backward, float[] backward_options,"
      " float eps_abs, float eps_rel, int max_iter, bool polish, bool best_iterate,"
      " bool save_factor, bool near_start=True)"
      " -> (Tensor z, Tensor nu, Tensor lam, Tensor lam_lb, Tensor lam_ub, Tensor slack,"
      " Tensor status, Tensor iterations, Tensor residuals, Tensor active, Tensor factor)",
      {at::Tag::pt2_compliant_tag});

  // solve with the exact derivative, for plain eager calls: the outputs from z to residuals, from the
  // same arguments without a derivative rule. torch.compile and torch.func know only solve.
  m.def(
      "solve_exact(Tensor Q, Tensor q, Tensor? G, Tensor? h_lower, Tensor? h, Tensor? A, Tensor? b,"
      " Tensor? lb, Tensor? ub,"
      " Tensor? z0, Tensor? nu0, Tensor? lam0, Tensor? lam_lb0, Tensor? lam_ub0,"
      " bool diagonal, float eps_abs, float eps_rel, int max_iter, bool polish, bool best_iterate)"
      " -> (Tensor z, Tensor nu, Tensor lam, Tensor lam_lb, Tensor lam_ub, Tensor slack,"
      " Tensor status, Tensor iterations, Tensor residuals)");

  // As solve_exact, with the LPGD derivative; `backward_options` as in solve.
  m.def(
      "solve_lpgd(Tensor Q, Tensor q, Tensor? G, Tensor? h_lower, Tensor? h, Tensor? A, Tensor? b,"
      " Tensor? lb, Tensor? ub,"
      " Tensor? z0, Tensor? nu0, Tensor? lam0, Tensor? lam_lb0, Tensor? lam_ub0,"
      " bool diagonal, float[] backward_options,"
      " float eps_abs, float eps_rel, int max_iter, bool polish, bool best_iterate)"
      " -> (Tensor z, Tensor nu, Tensor lam, Tensor lam_lb, Tensor lam_ub, Tensor slack,"
      " Tensor status, Tensor iterations, Tensor residuals)");

  // The linearised KKT system of solved problems: the exact derivative, forward and backward.
  //
  //   d = -K^-1 g,   K = [Q A' G_I' E_J'; A 0 0 0; G_I 0 0 0; E_J 0 0 0]
  //
  // I and J are the active rows and bounds; a bound's multiplier is lam_ub - lam_lb.
  //
  //   in   active, status, factor: from solve; factor None or [*, 0] is formed here
  //   in   g_z [*, n], g_nu [*, p], g_lam [*, m], g_bound [*, n] or [*, 0] without bounds
  //   out  d_z, d_nu, d_lam, d_bound, shaped like g
  //   out  info int32 [*]: 0, or 1 where K is singular and part of g outside its range, or where d
  //        overflows, which then is 0
  //
  // d is 0 on inactive rows and bounds, and everywhere where status >= 2. Where K is singular, d is
  // the least solution for the part of g that lies in its range, to about 1e-6 relative. K is
  // symmetric, hence d is self-adjoint in g.
  m.def(
      "kkt_solve(Tensor Q, Tensor? G, Tensor? A, Tensor active, Tensor status, Tensor? factor,"
      " Tensor g_z, Tensor? g_nu, Tensor? g_lam, Tensor? g_bound, bool diagonal)"
      " -> (Tensor d_z, Tensor d_nu, Tensor d_lam, Tensor d_bound, Tensor info)",
      {at::Tag::pt2_compliant_tag});

  // The gradients of a solve in its data, from its solution and the adjoint d: those of
  // cpu/gradient_batch.hpp. That of q is d_z.
  //
  //   in   z, nu, lam, active, status: from solve     d_z, d_nu, d_lam, d_bound: from kkt_solve
  //   in   g_slack [*, m]: cotangent of the slack     wanted: Q, G, h_lower, h, A, b, lb, ub
  //   in   summed: which of Q, G, A all members share
  //   out  grad_*: with the batch shape [*] each, also where the batch shares the argument, whose
  //        gradient is the sum; the sum over the batch, without [*], where `summed`; [0] where
  //        `wanted` is false
  //
  // Outputs are fresh and contiguous. The operator has no derivative of its own.
  m.def(
      "parameter_gradients(Tensor z, Tensor nu, Tensor lam, Tensor d_z, Tensor d_nu, Tensor d_lam,"
      " Tensor? d_bound, Tensor? g_slack, Tensor active, Tensor status, bool[8] wanted,"
      " bool[3] summed, bool diagonal)"
      " -> (Tensor grad_Q, Tensor grad_G, Tensor grad_h_lower, Tensor grad_h, Tensor grad_A,"
      " Tensor grad_b, Tensor grad_lb, Tensor grad_ub)",
      {at::Tag::pt2_compliant_tag});

  // kkt_solve and parameter_gradients in one pass over the members; arguments and outputs are theirs.
  m.def(
      "kkt_gradients(Tensor Q, Tensor? G, Tensor? A, Tensor active, Tensor status, Tensor? factor,"
      " Tensor z, Tensor nu, Tensor lam, Tensor g_z, Tensor? g_nu, Tensor? g_lam, Tensor? g_bound,"
      " Tensor? g_slack, bool[8] wanted, bool[3] summed, bool diagonal)"
      " -> (Tensor d_z, Tensor d_nu, Tensor d_lam, Tensor d_bound, Tensor info, Tensor grad_Q,"
      " Tensor grad_G, Tensor grad_h_lower, Tensor grad_h, Tensor grad_A, Tensor grad_b,"
      " Tensor grad_lb, Tensor grad_ub)",
      {at::Tag::pt2_compliant_tag});

  // The LPGD adjoint of a solve: its problem solved again, moved by a step along the cotangents g, at
  // both ends (core/lpgd.hpp).
  //
  //   in   the arguments of solve, z .. status: its outputs, g_*: cotangents of z .. lam_ub
  //   in   tau > 0: |t|, times (1 + max |q|) / max |g| with `relative`; side 0: t = tau, 1: t = -tau,
  //        2: both, against the solution where there is one end; rho >= 0: proximal term
  //   out  d_*, mean_*: difference and mean of what both ends have; the gradients of Q, G and A are
  //        those of parameter_gradients for these, that of q is d_z, that of b is -d_nu
  //   out  grad_*: with the batch shape, also where the batch shares the argument; [*, 0] of a bound
  //        that is absent
  //   out  info int32 [*]: 1 where an end was not solved, for which the solution stands in
  //
  // d_* and grad_* are 0 where status >= 2 or g is zero. Outputs are fresh and contiguous.
  m.def(
      "lpgd(Tensor Q, Tensor q, Tensor? G, Tensor? h_lower, Tensor? h, Tensor? A, Tensor? b,"
      " Tensor? lb, Tensor? ub, Tensor z, Tensor nu, Tensor lam, Tensor lam_lb, Tensor lam_ub,"
      " Tensor status, Tensor? g_z, Tensor? g_nu, Tensor? g_lam, Tensor? g_lb, Tensor? g_ub,"
      " bool diagonal, float tau, bool relative, int side, float rho, float eps_abs, float eps_rel,"
      " int max_iter, bool polish)"
      " -> (Tensor d_z, Tensor mean_z, Tensor d_nu, Tensor mean_nu, Tensor d_lam, Tensor mean_lam,"
      " Tensor grad_h_lower, Tensor grad_h, Tensor grad_lb, Tensor grad_ub, Tensor info)",
      {at::Tag::pt2_compliant_tag});

  // Watching backward passes: see backward_watch.hpp. info [*] int32, as kkt_solve returns it.
  m.def("record_backward(Tensor info) -> ()", &torchqp::torch_ops::record_backward);
  m.def("start_watch() -> int", &torchqp::torch_ops::start_watch);
  m.def("watch_seen(int watch) -> Tensor[]", &torchqp::torch_ops::watch_seen);
  m.def("stop_watch(int watch) -> ()", &torchqp::torch_ops::stop_watch);
}
