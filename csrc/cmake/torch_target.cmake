# torchqp_torch: the torch of ${Python_EXECUTABLE}, without its Python part. torchqp_torch_cuda, where
# that torch has CUDA: its CUDA part.
#
# Not find_package(Torch): it asks for CUDA wherever torch has it, and overwrites
# CMAKE_CUDA_ARCHITECTURES. Each configure asks again, so that a changed torch is seen.
find_package(Python 3.10 COMPONENTS Interpreter Development.Module)
if(NOT Python_Development.Module_FOUND)
  message(FATAL_ERROR "No Python >= 3.10 with its headers: install python3-dev or set "
                      "-DPython_EXECUTABLE. For the torch-free library pass "
                      "-DTORCHQP_BUILD_PYTHON=OFF.")
endif()
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import os, torch; print(os.path.dirname(torch.__file__), torch.__version__, \
int(torch.compiled_with_cxx11_abi()), torch.version.cuda or '', sep=';', end='')"
  OUTPUT_VARIABLE torch_answer ERROR_VARIABLE torch_error RESULT_VARIABLE torch_failed)
if(torch_failed)
  message(FATAL_ERROR "No usable torch in ${Python_EXECUTABLE}: install torch first. "
                      "For the torch-free library pass -DTORCHQP_BUILD_PYTHON=OFF.\n${torch_error}")
endif()
list(GET torch_answer 0 torch_dir)
list(GET torch_answer 1 TORCHQP_TORCH_VERSION)
list(GET torch_answer 2 torch_abi)
list(GET torch_answer 3 TORCHQP_TORCH_CUDA)
if(TORCHQP_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "torchqp needs torch >= 2.11, found ${TORCHQP_TORCH_VERSION} in ${torch_dir}")
endif()

set(TORCHQP_TORCH_LIB_DIR "${torch_dir}/lib")
add_library(torchqp_torch INTERFACE IMPORTED)
target_include_directories(torchqp_torch INTERFACE "${torch_dir}/include"
                                                   "${torch_dir}/include/torch/csrc/api/include")
target_compile_definitions(torchqp_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${torch_abi})
target_link_libraries(torchqp_torch INTERFACE "${TORCHQP_TORCH_LIB_DIR}/libtorch_cpu.so"
                                              "${TORCHQP_TORCH_LIB_DIR}/libc10.so")

# at::parallel_for is a header and runs serially unless compiled with OpenMP. torch brings its own
# runtime: linking that copy keeps one thread pool in the process.
target_compile_options(torchqp_torch INTERFACE -fopenmp)
if(EXISTS "${TORCHQP_TORCH_LIB_DIR}/libgomp.so.1")
  target_link_libraries(torchqp_torch INTERFACE "${TORCHQP_TORCH_LIB_DIR}/libgomp.so.1")
else()
  target_link_options(torchqp_torch INTERFACE -fopenmp)
endif()

if(TORCHQP_TORCH_CUDA)
  add_library(torchqp_torch_cuda INTERFACE IMPORTED)
  target_link_libraries(torchqp_torch_cuda INTERFACE torchqp_torch
                        "${TORCHQP_TORCH_LIB_DIR}/libtorch_cuda.so"
                        "${TORCHQP_TORCH_LIB_DIR}/libc10_cuda.so")
  # Where torch from a package index has the CUDA runtime and its libraries, relative to site-packages;
  # other builds of torch take those of the system.
  file(GLOB cuda_libraries RELATIVE "${torch_dir}/.." "${torch_dir}/../nvidia/*/lib/libcudart.so.*"
       "${torch_dir}/../nvidia/*/lib/libcublas.so.*" "${torch_dir}/../nvidia/*/lib/libcusolver.so.*")
  set(TORCHQP_TORCH_CUDA_DIRS "")
  foreach(library IN LISTS cuda_libraries)
    cmake_path(GET library PARENT_PATH directory)
    list(APPEND TORCHQP_TORCH_CUDA_DIRS "${directory}")
  endforeach()
  list(REMOVE_DUPLICATES TORCHQP_TORCH_CUDA_DIRS)
endif()
