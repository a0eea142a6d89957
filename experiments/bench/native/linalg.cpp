// The routines of csrc/linalg beside those of LAPACK and BLAS, on one thread: see README.md.

#include <benchmark/benchmark.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <system_error>
#include <vector>

#include "linalg/cholesky.hpp"
#include "linalg/products.hpp"
#include "linalg/triangular.hpp"

extern "C" {
void dpotrf_(const char*, const int*, double*, const int*, int*);
void spotrf_(const char*, const int*, float*, const int*, int*);
void dpotrs_(const char*, const int*, const int*, const double*, const int*, double*, const int*,
             int*);
void spotrs_(const char*, const int*, const int*, const float*, const int*, float*, const int*,
             int*);
void dsyrk_(const char*, const char*, const int*, const int*, const double*, const double*,
            const int*, const double*, double*, const int*);
void ssyrk_(const char*, const char*, const int*, const int*, const float*, const float*,
            const int*, const float*, float*, const int*);
void dtrsm_(const char*, const char*, const char*, const char*, const int*, const int*,
            const double*, const double*, const int*, double*, const int*);
void strsm_(const char*, const char*, const char*, const char*, const int*, const int*,
            const float*, const float*, const int*, float*, const int*);
}

namespace torchqp {
namespace {

constexpr int kRegisterBytes = linalg::kVectorBytes > 0 ? linalg::kVectorBytes : 16;
template <class T>
using Wide = Pack<T, kRegisterBytes / static_cast<int>(sizeof(T))>;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Most floating-point operations a second that one thread does, in fused multiply-adds of
/// registers that do not wait for each other.
template <class T>
double measure_peak() {
  constexpr int kChains = 12, kSteps = 20000;
  double best = 0;
  for (int round = 0; round < 200; ++round) {
    Wide<T> factor = broadcast<Wide<T>>(0.999), term = broadcast<Wide<T>>(0.001), sum[kChains];
    for (Wide<T>& each : sum) each = broadcast<Wide<T>>(1);
    benchmark::DoNotOptimize(factor.v);
    benchmark::DoNotOptimize(term.v);
    const double start = seconds();
    for (int step = 0; step < kSteps; ++step) {
      TORCHQP_UNROLL
      for (int c = 0; c < kChains; ++c) sum[c] = fused(sum[c], factor, term);
    }
    for (Wide<T>& each : sum) benchmark::DoNotOptimize(each.v);
    best = std::max(best, 2.0 * kSteps * kChains * width_v<Wide<T>> / (seconds() - start));
  }
  return best;
}

template <class T>
double peak() {
  static const double value = measure_peak<T>();
  return value;
}

/// What every routine is given: the same numbers in every member of a pack.
template <class Scalar>
struct Data {
  using T = Element<Scalar>;
  int size, stride;  ///< n padded to the tile, as the solver does
  std::vector<Scalar> H, V, x;

  explicit Data(int n)
      : size(padded(n, tile_size_v<SerialTeam, Scalar>)),
        stride(size),
        H(size * size, broadcast<Scalar>(0)),
        V(H),
        x(size, broadcast<Scalar>(0)) {
    std::mt19937 generator(1);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) V[i * stride + j] = broadcast<Scalar>(uniform(generator));
      x[i] = broadcast<Scalar>(uniform(generator));
      for (int j = 0; j < i; ++j)
        H[i * stride + j] = H[j * stride + i] = broadcast<Scalar>(uniform(generator));
    }
    // Diagonally dominant: positive definite, well conditioned.
    for (int i = 0; i < size; ++i) H[i * stride + i] = broadcast<Scalar>(i < n ? n : 1);
  }
};

/// Cholesky of H, in place.
template <class Scalar>
struct FactorCholesky {
  static constexpr const char* kName = "factor_cholesky";
  static constexpr const char* kPeer = "potrf";
  static constexpr bool kLower = true;
  static double flops(double n) { return n * n * n / 3; }
  using T = Element<Scalar>;

  explicit FactorCholesky(int n) : data(n), inverse(data.size) {}
  const std::vector<Scalar>& start() const { return data.H; }
  void ours(Scalar* H) {
    linalg::factor_cholesky<linalg::Pivot::kRequire>(SerialTeam{}, H, data.stride, data.size,
                                                     inverse.data(), 0.0);
  }
  void peer(T* H) {
    int info;
    if constexpr (sizeof(T) == 8) {
      dpotrf_("U", &data.size, H, &data.stride, &info);
    } else {
      spotrf_("U", &data.size, H, &data.stride, &info);
    }
  }
  Data<Scalar> data;
  std::vector<Scalar> inverse;
};

/// The lower triangle of V V'; ours mirrors it.
template <class Scalar>
struct MultiplyRows {
  static constexpr const char* kName = "multiply_rows";
  static constexpr const char* kPeer = "syrk";
  static constexpr bool kLower = true;
  static double flops(double n) { return n * n * (n + 1); }
  using T = Element<Scalar>;

  explicit MultiplyRows(int n) : data(n) {}
  const std::vector<Scalar>& start() const { return data.H; }
  void ours(Scalar* P) {
    linalg::multiply_rows<linalg::Into::kReplace>(SerialTeam{}, data.V.data(), data.stride,
                                                  data.size, data.V.data(), data.stride, data.size,
                                                  data.size, P, data.stride, true);
  }
  void peer(T* P) {
    const T one = 1, zero = 0;
    const T* V = reinterpret_cast<const T*>(data.V.data());
    if constexpr (sizeof(T) == 8) {
      dsyrk_("U", "T", &data.size, &data.size, &one, V, &data.stride, &zero, P, &data.stride);
    } else {
      ssyrk_("U", "T", &data.size, &data.size, &one, V, &data.stride, &zero, P, &data.stride);
    }
  }
  Data<Scalar> data;
};

/// Every row of V <- L^-1 (row), in place.
template <class Scalar>
struct SolveLowerRows {
  static constexpr const char* kName = "solve_lower_rows";
  static constexpr const char* kPeer = "trsm";
  static constexpr bool kLower = false;
  static double flops(double n) { return n * n * n; }
  using T = Element<Scalar>;

  explicit SolveLowerRows(int n) : factor(n) { factor.ours(factor.data.H.data()); }
  const std::vector<Scalar>& start() const { return factor.data.V; }
  void ours(Scalar* X) {
    const auto& [size, stride, H, V, x] = factor.data;
    linalg::solve_lower_rows(SerialTeam{}, H.data(), stride, size, factor.inverse.data(), X, stride,
                             size);
  }
  void peer(T* X) {
    const auto& [size, stride, H, V, x] = factor.data;
    const T one = 1;
    const T* L = reinterpret_cast<const T*>(H.data());
    if constexpr (sizeof(T) == 8) {
      dtrsm_("L", "U", "T", "N", &size, &size, &one, L, &stride, X, &stride);
    } else {
      strsm_("L", "U", "T", "N", &size, &size, &one, L, &stride, X, &stride);
    }
  }
  FactorCholesky<Scalar> factor;
};

/// x <- (L L')^-1 x, in place.
template <class Scalar>
struct SolveCholesky {
  static constexpr const char* kName = "solve_cholesky";
  static constexpr const char* kPeer = "potrs";
  static constexpr bool kLower = false;
  static double flops(double n) { return 2 * n * n; }
  using T = Element<Scalar>;

  explicit SolveCholesky(int n) : factor(n) { factor.ours(factor.data.H.data()); }
  const std::vector<Scalar>& start() const { return factor.data.x; }
  void ours(Scalar* x) {
    linalg::solve_cholesky(SerialTeam{}, factor.data.H.data(), factor.data.stride, factor.data.size,
                           factor.inverse.data(), x);
  }
  void peer(T* x) {
    const int columns = 1, size = factor.data.size, stride = factor.data.stride;
    int info;
    const T* L = reinterpret_cast<const T*>(factor.data.H.data());
    if constexpr (sizeof(T) == 8) {
      dpotrs_("U", &size, &columns, L, &stride, x, &size, &info);
    } else {
      spotrs_("U", &size, &columns, L, &stride, x, &size, &info);
    }
  }
  FactorCholesky<Scalar> factor;
};

/// Ends the program unless ours and the peer's give the same numbers; of matrices with kLower, in
/// the lower triangle.
template <template <class> class Routine, class T>
void check() {
  constexpr size_t kSize = 60;  // needs no padding
  Routine<T> routine(kSize);
  std::vector<T> ours = routine.start(), peer = ours;
  routine.ours(ours.data());
  routine.peer(peer.data());
  for (size_t k = 0; k < ours.size(); ++k) {
    if (Routine<T>::kLower && k % kSize > k / kSize) continue;
    if (std::abs(ours[k] - peer[k]) <= 1000 * std::numeric_limits<T>::epsilon()) continue;
    std::fprintf(stderr, "%s and %s disagree\n", Routine<T>::kName, Routine<T>::kPeer);
    std::exit(1);
  }
}

/// Times `work` on copies of `start` that are renewed off the clock, as many as fit a cache.
template <class Scalar, class Work>
void measure(benchmark::State& state, const std::vector<Scalar>& start, double flops, Work work) {
  constexpr size_t kCopiesBytes = 64 * 1024, kMostCopies = 64;
  const size_t bytes = start.size() * sizeof(Scalar);
  const size_t copies = std::clamp<size_t>(kCopiesBytes / bytes, 1, kMostCopies);
  std::vector<Scalar> block(copies * start.size());
  for (auto _ : state) {
    for (size_t k = 0; k < copies; ++k)
      std::copy(start.begin(), start.end(), block.begin() + k * start.size());
    benchmark::ClobberMemory();
    const double begin = seconds();
    for (size_t k = 0; k < copies; ++k) work(block.data() + k * start.size());
    benchmark::ClobberMemory();
    state.SetIterationTime(seconds() - begin);
  }
  using benchmark::Counter;
  const double matrices =
      static_cast<double>(state.iterations()) * static_cast<double>(copies * width_v<Scalar>);
  state.counters["each_s"] = Counter(matrices, Counter::kIsRate | Counter::kInvert);
  state.counters["GFLOP/s"] = Counter(matrices * flops * 1e-9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(matrices * flops / peak<Element<Scalar>>(), Counter::kIsRate);
}

constexpr int kSizes[] = {8, 12, 20, 52, 100, 200, 500, 1000};
constexpr int kLargestPack = 200;

template <template <class> class Routine, class T>
void add() {
  check<Routine, T>();
  const bool is_double = sizeof(T) == 8;
  const std::string type = is_double ? "double" : "float", letter = is_double ? "d" : "s";
  const auto add_one = [](const std::string& name, int n, auto run) {
    benchmark::RegisterBenchmark((name + "/" + std::to_string(n)).c_str(), run)->UseManualTime();
  };
  for (const int n : kSizes) {
    const std::string name = Routine<T>::kName;
    const double flops = Routine<T>::flops(n);
    if (n <= kLargestPack)
      add_one(name + "/pack/" + type, n, [n, flops](benchmark::State& state) {
        Routine<Wide<T>> routine(n);
        measure(state, routine.start(), flops, [&](Wide<T>* data) { routine.ours(data); });
      });
    add_one(name + "/one/" + type, n, [n, flops](benchmark::State& state) {
      Routine<T> routine(n);
      measure(state, routine.start(), flops, [&](T* data) { routine.ours(data); });
    });
    add_one(name + "/" + letter + Routine<T>::kPeer + "/" + type, n,
            [n, flops](benchmark::State& state) {
              Routine<T> routine(n);
              measure(state, routine.start(), flops, [&](T* data) { routine.peer(data); });
            });
  }
}

template <class T>
void add_all() {
  add<FactorCholesky, T>();
  add<MultiplyRows, T>();
  add<SolveLowerRows, T>();
  add<SolveCholesky, T>();
}

std::string gigaflops(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value * 1e-9);
  return text;
}

/// The file that provides a function: several LAPACKs may be installed.
std::string library_of(const char* function) {
  Dl_info info;
  const void* address = dlsym(RTLD_DEFAULT, function);
  if (address == nullptr || dladdr(address, &info) == 0) return "unknown";
  std::error_code error;
  const auto file = std::filesystem::canonical(info.dli_fname, error);
  return error ? info.dli_fname : file.string();
}

}  // namespace
}  // namespace torchqp

int main(int argc, char** argv) {
  using torchqp::peak;
  benchmark::AddCustomContext("peak_double_gflops", torchqp::gigaflops(peak<double>()));
  benchmark::AddCustomContext("peak_float_gflops", torchqp::gigaflops(peak<float>()));
  benchmark::AddCustomContext("register_bytes", std::to_string(torchqp::kRegisterBytes));
  benchmark::AddCustomContext("potrf", torchqp::library_of("dpotrf_"));
  benchmark::AddCustomContext("syrk", torchqp::library_of("dsyrk_"));
  torchqp::add_all<double>();
  torchqp::add_all<float>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
