// cuBLAS and cuSOLVER as far as csrc/cuda calls them: recorded, and computed from the definitions where
// the runtime's stand-in executes. Column-major, as theirs.
#include <cmath>

#include "cuda/runtime.hpp"

namespace torchqp::cuda {
namespace {

cublasStatus_t record_blas(Function function, int members = 0) {
  return fails({.function = function, .members = members}) ? runtime().blas_error
                                                           : CUBLAS_STATUS_SUCCESS;
}

/// Only what is used is understood.
void expect(bool understood) {
  if (!understood) throw std::logic_error("not a call that the stand-in knows");
}

/// A = U'U in place; the rest of A is left alone. Where a pivot is not positive, its place, from 1 on,
/// and garbage in A.
template <class Scalar>
int factor(int n, Scalar* A, int lda) {
  const auto at = [&](int i, int j) -> Scalar& { return A[int64_t{j} * lda + i]; };
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i <= j; ++i) {
      Scalar sum = at(i, j);
      for (int k = 0; k < i; ++k) sum -= at(k, i) * at(k, j);
      if (i < j) {
        at(i, j) = sum / at(i, i);
      } else if (sum > 0) {
        at(j, j) = std::sqrt(sum);
      } else {
        for (int k = j; k < n; ++k) at(k, k) = 1;  // what looks like a factor, and is none
        return j + 1;
      }
    }
  }
  return 0;
}

template <class Scalar>
cusolverStatus_t potrf(cublasFillMode_t fill, int n, Scalar** A, int lda, int* info, int members) {
  if (fails({.function = Function::kFactor, .members = members})) return runtime().solver_error;
  expect(fill == CUBLAS_FILL_MODE_UPPER && lda == n);
  for (int i = 0; runtime().execute && i < members; ++i) info[i] = factor(n, A[i], lda);
  return CUSOLVER_STATUS_SUCCESS;
}

/// B <- alpha U^-T B.
template <class Scalar>
cublasStatus_t trsm(cublasSideMode_t side, cublasFillMode_t fill, cublasOperation_t transposed,
                    cublasDiagType_t diagonal, int m, int n, const Scalar* alpha,
                    const Scalar* const* A, int lda, Scalar* const* B, int ldb, int members) {
  const cublasStatus_t status = record_blas(Function::kSolve, members);
  if (status != CUBLAS_STATUS_SUCCESS || !runtime().execute) return status;
  expect(side == CUBLAS_SIDE_LEFT && fill == CUBLAS_FILL_MODE_UPPER);
  expect(transposed == CUBLAS_OP_T && diagonal == CUBLAS_DIAG_NON_UNIT && *alpha == Scalar(1));
  for (int member = 0; member < members; ++member)
    for (int column = 0; column < n; ++column) {
      Scalar* x = B[member] + int64_t{column} * ldb;
      for (int i = 0; i < m; ++i) {
        const Scalar* u = A[member] + int64_t{i} * lda;
        for (int k = 0; k < i; ++k) x[i] -= u[k] * x[k];
        x[i] /= u[i];
      }
    }
  return status;
}

/// C <- alpha A'B + beta C.
template <class Scalar>
cublasStatus_t gemm(cublasOperation_t transposed_A, cublasOperation_t transposed_B, int m, int n,
                    int k, const Scalar* alpha, const Scalar* A, int lda, int64_t next_A,
                    const Scalar* B, int ldb, int64_t next_B, const Scalar* beta, Scalar* C,
                    int ldc, int64_t next_C, int members) {
  const cublasStatus_t status = record_blas(Function::kMultiply, members);
  if (status != CUBLAS_STATUS_SUCCESS || !runtime().execute) return status;
  expect(transposed_A == CUBLAS_OP_T && transposed_B == CUBLAS_OP_N);
  expect(runtime().math == CUBLAS_DEFAULT_MATH);
  expect(runtime().pointer == CUBLAS_POINTER_MODE_HOST);
  for (int64_t member = 0; member < members; ++member)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < m; ++i) {
        const Scalar *a = A + member * next_A + i * lda, *b = B + member * next_B + j * ldb;
        Scalar sum = 0;
        for (int l = 0; l < k; ++l) sum += a[l] * b[l];
        Scalar& to = C[member * next_C + j * ldc + i];
        to = *beta == Scalar(0) ? *alpha * sum : *alpha * sum + *beta * to;
      }
  return status;
}

}  // namespace
}  // namespace torchqp::cuda

extern "C" {

using namespace torchqp::cuda;

const char* CUBLASWINAPI cublasGetStatusString(cublasStatus_t) {
  return "an error of cuBLAS";
}

cublasStatus_t CUBLASWINAPI cublasGetMathMode(cublasHandle_t, cublasMath_t* mode) {
  *mode = runtime().math;
  return record_blas(Function::kBlasMode);
}
cublasStatus_t CUBLASWINAPI cublasSetMathMode(cublasHandle_t, cublasMath_t mode) {
  const cublasStatus_t status = record_blas(Function::kBlasMode);
  if (status == CUBLAS_STATUS_SUCCESS) runtime().math = mode;
  return status;
}
cublasStatus_t CUBLASWINAPI cublasGetPointerMode(cublasHandle_t, cublasPointerMode_t* mode) {
  *mode = runtime().pointer;
  return record_blas(Function::kBlasMode);
}
cublasStatus_t CUBLASWINAPI cublasSetPointerMode(cublasHandle_t, cublasPointerMode_t mode) {
  const cublasStatus_t status = record_blas(Function::kBlasMode);
  if (status == CUBLAS_STATUS_SUCCESS) runtime().pointer = mode;
  return status;
}

#define TORCHQP_LIBRARY_FUNCTIONS(S, Scalar)                                                      \
  cusolverStatus_t CUSOLVERAPI cusolverDn##S##potrfBatched(                                       \
      cusolverDnHandle_t, cublasFillMode_t fill, int n, Scalar* A[], int lda, int* info,          \
      int members) {                                                                              \
    return potrf(fill, n, A, lda, info, members);                                                 \
  }                                                                                               \
  cublasStatus_t CUBLASWINAPI cublas##S##trsmBatched(                                             \
      cublasHandle_t, cublasSideMode_t side, cublasFillMode_t fill, cublasOperation_t transposed, \
      cublasDiagType_t diagonal, int m, int n, const Scalar* alpha, const Scalar* const A[],      \
      int lda, Scalar* const B[], int ldb, int members) {                                         \
    return trsm(side, fill, transposed, diagonal, m, n, alpha, A, lda, B, ldb, members);          \
  }                                                                                               \
  cublasStatus_t CUBLASWINAPI cublas##S##gemmStridedBatched(                                      \
      cublasHandle_t, cublasOperation_t a, cublasOperation_t b, int m, int n, int k,              \
      const Scalar* alpha, const Scalar* A, int lda, long long next_A, const Scalar* B, int ldb,  \
      long long next_B, const Scalar* beta, Scalar* C, int ldc, long long next_C, int members) {  \
    return gemm(a, b, m, n, k, alpha, A, lda, next_A, B, ldb, next_B, beta, C, ldc, next_C,       \
                members);                                                                         \
  }
TORCHQP_LIBRARY_FUNCTIONS(S, float)
TORCHQP_LIBRARY_FUNCTIONS(D, double)
#undef TORCHQP_LIBRARY_FUNCTIONS

}  // extern "C"
