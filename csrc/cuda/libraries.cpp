#include "cuda/libraries.hpp"

#include <type_traits>

namespace torchqp::cuda {
namespace {

Error blas_error(cublasStatus_t status) {
  return {.blas = static_cast<int>(status)};
}

/// The function for float, or the one for double.
template <class Scalar, class Single, class Double>
auto pick(Single single, [[maybe_unused]] Double twice) {
  if constexpr (std::is_same_v<Scalar, float>) {
    return single;
  } else {
    return twice;
  }
}

}  // namespace

std::string Error::message() const {
  if (runtime != cudaSuccess) return std::string("CUDA: ") + cudaGetErrorString(runtime);
  if (blas != 0)
    return std::string("cuBLAS: ") + cublasGetStatusString(static_cast<cublasStatus_t>(blas));
  if (solver != 0) return "cuSOLVER: status " + std::to_string(solver);
  return "no error";
}

BlasModes::BlasModes(cublasHandle_t handle) : handle_(handle) {
  error_ = blas_error(cublasGetMathMode(handle_, &math_));
  if (!error_) error_ = blas_error(cublasGetPointerMode(handle_, &pointer_));
  if (error_) return;
  known_ = true;
  error_ = blas_error(cublasSetMathMode(handle_, CUBLAS_DEFAULT_MATH));
  if (!error_) error_ = blas_error(cublasSetPointerMode(handle_, CUBLAS_POINTER_MODE_HOST));
}

BlasModes::~BlasModes() {
  if (!known_) return;
  cublasSetMathMode(handle_, math_);
  cublasSetPointerMode(handle_, pointer_);
}

template <class Scalar>
Error factor_cholesky(const Libraries& libraries, int n, Scalar* const* H, int* info, int count) {
  const auto potrf = pick<Scalar>(cusolverDnSpotrfBatched, cusolverDnDpotrfBatched);
  auto* const at = const_cast<Scalar**>(H);  // of the pointers nothing is written
  const cusolverStatus_t status =
      potrf(libraries.solver, CUBLAS_FILL_MODE_UPPER, n, at, n, info, count);
  return {.solver = static_cast<int>(status)};
}

template <class Scalar>
Error solve_lower_rows(const Libraries& libraries, int n, Scalar* const* L, Scalar* const* X,
                       int rows, int count) {
  if (rows == 0) return {};
  const auto trsm = pick<Scalar>(cublasStrsmBatched, cublasDtrsmBatched);
  const Scalar one = 1;
  return blas_error(trsm(libraries.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T,
                         CUBLAS_DIAG_NON_UNIT, n, rows, &one, L, n, X, n, count));
}

template <class Scalar>
Error multiply_rows(const Libraries& libraries, double alpha, double beta,
                    const RowProducts<Scalar>& of, int count) {
  if (of.rows == 0 || of.cols == 0) return {};
  const auto gemm = pick<Scalar>(cublasSgemmStridedBatched, cublasDgemmStridedBatched);
  const auto by = static_cast<Scalar>(alpha), keep = static_cast<Scalar>(beta);
  // To cuBLAS P is [cols, rows] = Y X', of operands that it has transposed.
  return blas_error(gemm(libraries.blas, CUBLAS_OP_T, CUBLAS_OP_N, of.cols, of.rows, of.depth, &by,
                         of.Y, of.depth, of.apart, of.X, of.depth, of.apart, &keep, of.P, of.stride,
                         of.apart, count));
}

#define TORCHQP_INSTANTIATE(Scalar)                                                           \
  template Error factor_cholesky(const Libraries&, int, Scalar* const*, int*, int);           \
  template Error solve_lower_rows(const Libraries&, int, Scalar* const*, Scalar* const*, int, \
                                  int);                                                       \
  template Error multiply_rows(const Libraries&, double, double, const RowProducts<Scalar>&, int);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cuda
