# torchqp_cuda: the solver on the GPU, torch-free, exported as torchqp::cuda. Needs no GPU to build.
file(GLOB cuda_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/cuda/*.cu"
                                         "${PROJECT_SOURCE_DIR}/csrc/cuda/*.cpp")
set(cuda_headers cuda/device.hpp cuda/solve_batch.hpp)
list(TRANSFORM cuda_headers PREPEND "${PROJECT_SOURCE_DIR}/csrc/")

add_library(torchqp_cuda STATIC ${cuda_sources})
add_library(torchqp::cuda ALIAS torchqp_cuda)
set_target_properties(torchqp_cuda PROPERTIES EXPORT_NAME cuda)
target_sources(torchqp_cuda PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/csrc"
               FILES ${cuda_headers})
# The operators and torchqpConfig.cmake take the toolkit's libraries from here; in the operators they
# are those that torch has loaded.
target_link_libraries(torchqp_cuda PUBLIC torchqp_core CUDA::cudart CUDA::cublas CUDA::cusolver
                      PRIVATE $<BUILD_INTERFACE:torchqp_arithmetic>
                              $<BUILD_INTERFACE:torchqp_warnings>)
# The bodies are host and device functions and constants; all architectures of a file at once.
target_compile_options(torchqp_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr --expt-extended-lambda --threads=0>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<NOT:$<CONFIG:Debug>>>:-O3>)

install(TARGETS torchqp_cuda EXPORT torchqp_cuda COMPONENT cpp
        FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/torchqp" COMPONENT cpp)
