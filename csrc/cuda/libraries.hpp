#pragma once
// cuBLAS and cuSOLVER on the matrices of a batch of set-ups, in the layout of the project: row-major,
// the members `apart` scalars from each other. Both libraries are column-major: to them a matrix here
// is its transpose, and a lower triangle an upper one.
//
// Every call is enqueued on the stream of its handle and returns at once.

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <cstdint>

#include "cuda/solve_batch.hpp"

namespace torchqp::cuda {

/// Gives a cuBLAS handle the modes that the products here are written for, and those of its owner back
/// in the end: scalars on the host, and no product in less than the precision of its operands (torch's
/// handle takes TF32 where a program allows it).
class BlasModes {
 public:
  explicit BlasModes(cublasHandle_t handle);
  ~BlasModes();
  BlasModes(const BlasModes&) = delete;
  BlasModes& operator=(const BlasModes&) = delete;

  /// Whether setting them failed; the handle then has its owner's modes.
  const Error& error() const { return error_; }

 private:
  cublasHandle_t handle_;
  cublasMath_t math_ = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointer_ = CUBLAS_POINTER_MODE_HOST;
  bool known_ = false;
  Error error_;
};

/// H = L L' in place, of `count` matrices.
///
///   in/out  H     [count] on the device, where each [n, n] begins; the lower triangle becomes L
///   out     info  [count] on the device: 0, or not positive definite: H is then undefined
template <class Scalar>
Error factor_cholesky(const Libraries& libraries, int n, Scalar* const* H, int* info, int count);

/// Every row of X <- L^-1 (row): X <- X L^-T.
///
///   in      L  [count] on the device, each [n, n]
///   in/out  X  [count] on the device, each [rows, n]
template <class Scalar>
Error solve_lower_rows(const Libraries& libraries, int n, Scalar* const* L, Scalar* const* X,
                       int rows, int count);

/// Two sets of rows, and where their products go.
template <class Scalar>
struct RowProducts {
  const Scalar* X;  ///< [rows, depth]
  int rows;
  const Scalar* Y;  ///< [cols, depth]
  int cols;
  int depth;
  Scalar* P;  ///< [rows, cols], rows `stride` apart
  int stride;
  int64_t apart;  ///< from member to member, of all three
};

/// P = beta P + alpha X Y' of `count` members. Nothing is called where P is empty.
template <class Scalar>
Error multiply_rows(const Libraries& libraries, double alpha, double beta,
                    const RowProducts<Scalar>& of, int count);

}  // namespace torchqp::cuda
