#pragma once
// One problem (or one pack of problems) in the layout that the solver works on: dense, padded to
// the tile, row-major.

#include "core/pack.hpp"
#include "core/problem.hpp"
#include "core/team.hpp"
#include "qp/workspace.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Sizes, padded to the tile of Team x Scalar.
struct Shape {
  int n, m, p;     ///< as the caller's
  int np, mp, pp;  ///< padded
  int k;  ///< constraints with sides: padded rows, then padded variables when there are bounds
  bool bounds, lower, upper;
  bool diagonal;  ///< Q is kept as its diagonal: it was given so, and rows are few (see
                  ///< diagonal_form.hpp)

  /// Rows, or variables where they have bounds and are more.
  TORCHQP_HD int longest_side() const { return bounds && np > mp ? np : mp; }

  /// f(c) for row i and for the bounds of variable i, c being their place among the k constraints.
  /// Sums go by i < longest_side(): c depends on the padding, and so would the order.
  template <class F>
  TORCHQP_HD void for_constraints_at(int i, F f) const {
    if (i < mp) f(i);
    if (bounds && i < np) f(mp + i);
  }

  template <class Team, class Scalar>
  TORCHQP_HD static Shape of(const Dims& dims) {
    constexpr int kTile = tile_size_v<Team, Scalar>;
    Shape shape;
    shape.n = dims.n, shape.m = dims.m, shape.p = dims.p;
    shape.np = padded(dims.n, kTile), shape.mp = padded(dims.m, kTile),
    shape.pp = padded(dims.p, kTile);
    shape.bounds = dims.bounds();
    shape.diagonal = keeps_diagonal(dims);
    shape.k = shape.mp + (shape.bounds ? shape.np : 0);
    shape.lower = (dims.m > 0 && dims.h_lower) || dims.lb;
    shape.upper = (dims.m > 0 && dims.h_upper) || dims.ub;
    return shape;
  }
};

/// The data of one problem. Padding: identity in Q, zero in q, G, A and b, no constraint in lower
/// and upper.
template <class Scalar>
struct Data {
  Shape shape;
  Scalar* Q;              ///< [np, np] symmetric, both triangles; [np] when shape.diagonal
  Scalar* q;              ///< [np]
  Scalar* G;              ///< [mp, np]
  Scalar* A;              ///< [pp, np]
  Scalar* b;              ///< [pp]
  Scalar *lower, *upper;  ///< [k] sides of rows, then of variables; -inf, +inf where there is none

  TORCHQP_HD Data(const Shape& s, Arena<Scalar>& arena)
      : shape(s),
        Q(arena.take(s.diagonal ? s.np : int64_t{s.np} * s.np, Heat::kData)),
        q(arena.take(s.np)),
        G(arena.take(int64_t{s.mp} * s.np, Heat::kData)),
        A(arena.take(int64_t{s.pp} * s.np, Heat::kData)),
        b(arena.take(s.pp)),
        lower(arena.take(s.k)),
        upper(arena.take(s.k)) {}
};

/// What a row or bound is made larger by at most, a power of two. Sides are below kInfinity; scaled by
/// more they could become infinite, which is none at all.
template <class Scalar>
inline constexpr double largest_row_factor_v = sizeof(Element<Scalar>) == 8 ? 0x1p930 : 0x1p56;

/// Factors that turn the solver's residuals into the caller's units. All ones when the data are
/// unscaled.
template <class Scalar>
struct Scale {
  Scalar* variable;  ///< [np]  z = variable * (scaled z)
  Scalar* row;       ///< [k]   (scaled row) = row * row
  Scalar* equality;  ///< [pp]  (scaled equality) = equality * equality
  Scalar* cost;      ///< [1]   (scaled objective) = cost * objective

  TORCHQP_HD Scale(const Shape& s, Arena<Scalar>& arena)
      : variable(arena.take(s.np)),
        row(arena.take(s.k)),
        equality(arena.take(s.pp)),
        cost(arena.take(1)) {}

  /// All factors one. Team: shared out; ends without a sync.
  template <class Team>
  TORCHQP_HD void reset(const Team& team, const Shape& s) const {
    const Scalar one = broadcast<Scalar>(1);
    team.for_each(s.np, [&](int i) { variable[i] = one; });
    team.for_each(s.k, [&](int i) { row[i] = one; });
    team.for_each(s.pp, [&](int i) { equality[i] = one; });
    team.single([&] { cost[0] = one; });
  }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
