# torchqp_ops and _C, side by side in the Python package: cmake --install BUILD --component python.
file(GLOB ops_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/csrc/torch/*.cpp")
if(NOT TORCHQP_CUDA_KERNELS)
  list(FILTER ops_sources EXCLUDE REGEX "/(ops_cuda|cuda_libraries)\\.cpp$")
endif()
add_library(torchqp_ops SHARED ${ops_sources})
add_library(torchqp::ops ALIAS torchqp_ops)
set(ops_include "${PROJECT_SOURCE_DIR}/csrc/torch/include")
target_sources(torchqp_ops PUBLIC FILE_SET HEADERS BASE_DIRS "${ops_include}"
               FILES "${ops_include}/torchqp/autograd.h")
target_link_libraries(torchqp_ops PUBLIC torchqp_core
                      PRIVATE $<BUILD_INTERFACE:torchqp_torch> $<BUILD_INTERFACE:torchqp_warnings>)
# A symbol of Python or a forgotten source fails here, not at load.
target_link_options(torchqp_ops PRIVATE -Wl,-z,defs)
# Programs without Python find torch and its CUDA runtime by these; in Python both are loaded already.
# The relative ones are for site-packages.
set(ops_rpath "$ORIGIN/../torch/lib" "${TORCHQP_TORCH_LIB_DIR}")
if(TORCHQP_CUDA_KERNELS)
  target_compile_definitions(torchqp_ops PRIVATE TORCHQP_HAS_CUDA)
  target_link_libraries(torchqp_ops PRIVATE $<BUILD_INTERFACE:torchqp_cuda>
                                            $<BUILD_INTERFACE:torchqp_torch_cuda>)
  foreach(directory IN LISTS TORCHQP_TORCH_CUDA_DIRS)
    list(APPEND ops_rpath "$ORIGIN/../${directory}" "${TORCHQP_TORCH_LIB_DIR}/../../${directory}")
  endforeach()
endif()
set_target_properties(torchqp_ops PROPERTIES EXPORT_NAME ops INSTALL_RPATH "${ops_rpath}")
install(TARGETS torchqp_ops EXPORT torchqp COMPONENT cpp FILE_SET HEADERS COMPONENT cpp)

set(PYBIND11_FINDPYTHON ON)
execute_process(COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir OUTPUT_VARIABLE pybind11_DIR
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
find_package(pybind11 3.0 CONFIG REQUIRED)
pybind11_add_module(_C MODULE NO_EXTRAS "${PROJECT_SOURCE_DIR}/csrc/python/bindings.cpp")
target_include_directories(_C PRIVATE "${PROJECT_SOURCE_DIR}/csrc")
target_link_libraries(_C PRIVATE torchqp_warnings)
list(JOIN TORCHQP_SIMD_LEVELS "," simd_levels)
set(cuda_architectures "")
if(TORCHQP_CUDA_KERNELS)
  list(JOIN TORCHQP_CUDA_ARCHITECTURES "," cuda_architectures)
endif()
target_compile_definitions(_C PRIVATE
  TORCHQP_VERSION="${TORCHQP_VERSION}"
  TORCHQP_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  TORCHQP_BUILD_TYPE="${CMAKE_BUILD_TYPE}"
  TORCHQP_SIMD_LEVELS="${simd_levels}"
  TORCHQP_TORCH_VERSION="${TORCHQP_TORCH_VERSION}"
  TORCHQP_TORCH_CUDA="${TORCHQP_TORCH_CUDA}"
  TORCHQP_CUDA_COMPILER="${TORCHQP_CUDA_COMPILER}"
  TORCHQP_CUDA_KERNELS=$<BOOL:${TORCHQP_CUDA_KERNELS}>
  TORCHQP_CUDA_ARCHITECTURES="${cuda_architectures}")

install(TARGETS torchqp_ops _C LIBRARY DESTINATION . COMPONENT python EXCLUDE_FROM_ALL)
