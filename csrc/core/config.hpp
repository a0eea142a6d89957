#pragma once
// Compiler vocabulary shared by every header: host/device functions, unrolling, the instruction-set
// namespace.

#if defined(__CUDACC__)
#define TORCHQP_HD __host__ __device__ __forceinline__
#if defined(__CUDA_ARCH__)
#define TORCHQP_UNROLL _Pragma("unroll")
#else
#define TORCHQP_UNROLL  // the host's half of a .cu file, which no one runs
#endif
#elif defined(__clang__)
#define TORCHQP_HD inline __attribute__((always_inline))
#define TORCHQP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TORCHQP_HD inline __attribute__((always_inline))
#define TORCHQP_UNROLL _Pragma("GCC unroll 16")
#endif

// A loop that a GPU's compiler leaves as it is: laid out several times over, the solver does not fit
// the instruction cache, and few entries are left for each lane.
#if defined(__CUDA_ARCH__)
#define TORCHQP_ROLLED _Pragma("unroll 1")
#else
#define TORCHQP_ROLLED
#endif

// A routine that is called, not inlined: the steps of the solver. Keeps compile time and code size
// in bounds.
#if defined(__CUDACC__)
#define TORCHQP_HD_CALL __host__ __device__ __noinline__
#else
#define TORCHQP_HD_CALL inline __attribute__((noinline))
#endif

// Templates compiled for several instruction sets live in a namespace named after the set:
// otherwise the linker may keep the AVX-512 copy of a shared template for every machine.
#if defined(__AVX512F__)
#define TORCHQP_ISA_NAMESPACE avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define TORCHQP_ISA_NAMESPACE avx2
#else
#define TORCHQP_ISA_NAMESPACE baseline
#endif

#define TORCHQP_BEGIN_ISA_NAMESPACE inline namespace TORCHQP_ISA_NAMESPACE {
#define TORCHQP_END_ISA_NAMESPACE }
