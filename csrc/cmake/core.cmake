# torchqp_core: the torch-free solver, compiled once for each instruction set, chosen at run time.
# The flags that fix the arithmetic, in every level, on the GPU and in the tests: fused multiply-adds
# only where the source says so.
add_library(torchqp_arithmetic INTERFACE)
target_compile_options(torchqp_arithmetic INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off -fno-math-errno -fno-trapping-math>
  $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false
                             -Xcompiler=-ffp-contract=off,-fno-math-errno,-fno-trapping-math>)
target_include_directories(torchqp_arithmetic INTERFACE "${PROJECT_SOURCE_DIR}/csrc")

set(TORCHQP_SIMD_LEVELS baseline)
set(TORCHQP_FLAGS_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  # Instrumented, one level takes minutes, and they share their source.
  if(NOT TORCHQP_SANITIZE AND NOT TORCHQP_ONE_LEVEL)
    list(APPEND TORCHQP_SIMD_LEVELS avx2 avx512)
  endif()
  set(TORCHQP_FLAGS_avx2 -mavx2 -mfma)
  set(TORCHQP_FLAGS_avx512 -mavx512f -mavx512dq -mavx512vl -mavx512bw -mavx2 -mfma
                           -mprefer-vector-width=512)
endif()

file(GLOB core_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/cpu/*.cpp")
list(REMOVE_ITEM core_sources "${PROJECT_SOURCE_DIR}/csrc/cpu/kernels.cpp")
set(core_headers core/config.hpp core/gradients.hpp core/lpgd.hpp core/problem.hpp core/settings.hpp
                 core/status.hpp cpu/solve_batch.hpp cpu/kkt_batch.hpp)
list(TRANSFORM core_headers PREPEND "${PROJECT_SOURCE_DIR}/csrc/")

add_library(torchqp_core STATIC ${core_sources})
add_library(torchqp::core ALIAS torchqp_core)
set_target_properties(torchqp_core PROPERTIES EXPORT_NAME core)
target_sources(torchqp_core PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/csrc"
               FILES ${core_headers})
target_compile_features(torchqp_core PUBLIC cxx_std_20)
target_link_libraries(torchqp_core PRIVATE $<BUILD_INTERFACE:torchqp_arithmetic>
                                           $<BUILD_INTERFACE:torchqp_warnings>)

foreach(level IN LISTS TORCHQP_SIMD_LEVELS)
  add_library(torchqp_kernels_${level} OBJECT "${PROJECT_SOURCE_DIR}/csrc/cpu/kernels.cpp")
  # -O3 in RelWithDebInfo and in a build type of the user's own too: the speed is in the registers.
  target_compile_options(torchqp_kernels_${level} PRIVATE ${TORCHQP_FLAGS_${level}}
                         $<$<NOT:$<CONFIG:Debug>>:-O3>)
  target_link_libraries(torchqp_kernels_${level} PRIVATE torchqp_arithmetic torchqp_warnings)
  target_sources(torchqp_core PRIVATE $<TARGET_OBJECTS:torchqp_kernels_${level}>)
  string(TOUPPER "TORCHQP_HAS_${level}" has)
  target_compile_definitions(torchqp_core PRIVATE ${has})
endforeach()

# C++ users include <torchqp/cpu/solve_batch.hpp>. The headers include each other from
# include/torchqp, which is therefore an include directory too.
target_include_directories(torchqp_core INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS torchqp_core EXPORT torchqp COMPONENT cpp
        FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/torchqp" COMPONENT cpp)
