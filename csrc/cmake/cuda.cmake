# CUDA: whether nvcc is used, for which GPUs, and the target torchqp_cuda. The compiler decides, not a
# GPU: build machines have none.
#
#   TORCHQP_CUDA           AUTO: where nvcc is found and torch, if the operators are built, has CUDA
#                          of the same major version; ON: nvcc is required; OFF: never
#   TORCH_CUDA_ARCH_LIST   in torch's syntax, "8.0;9.0+PTX" or "native"; taken from the environment
#                          when a build tree is configured first. Without it,
#                          CMAKE_CUDA_ARCHITECTURES decides, or its default here.
#
# Sets TORCHQP_CUDA_COMPILER (version of nvcc, or empty), TORCHQP_CUDA_KERNELS (whether the operators
# have them) and TORCHQP_CUDA_ARCHITECTURES (sm_80, compute_90, ...).
set(TORCHQP_CUDA_COMPILER "")
set(TORCHQP_CUDA_KERNELS FALSE)
set(TORCHQP_CUDA_ARCHITECTURES "")
set(TORCH_CUDA_ARCH_LIST "$ENV{TORCH_CUDA_ARCH_LIST}" CACHE STRING
    "GPUs to compile for, in torch's syntax; empty: CMAKE_CUDA_ARCHITECTURES")

if(TORCHQP_CUDA)
  find_program(TORCHQP_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
               PATH_SUFFIXES bin)
  if(TORCHQP_NVCC)
    execute_process(COMMAND "${TORCHQP_NVCC}" --version
                    OUTPUT_VARIABLE nvcc_version COMMAND_ERROR_IS_FATAL ANY)
    if(nvcc_version MATCHES "release [0-9.]+, V([0-9.]+)")
      set(TORCHQP_CUDA_COMPILER "${CMAKE_MATCH_1}")
    endif()
  endif()
endif()

# Why there will be no CUDA, or none in the operators.
set(no_cuda "")
set(no_kernels "")
if(NOT TORCHQP_CUDA)
  set(no_cuda "TORCHQP_CUDA=${TORCHQP_CUDA}")
elseif(NOT TORCHQP_CUDA_COMPILER)
  set(no_cuda "there is no nvcc: put it on PATH or set CUDA_HOME")
elseif(TORCHQP_CUDA_COMPILER VERSION_LESS 12.8)
  set(no_cuda "nvcc ${TORCHQP_CUDA_COMPILER} is older than 12.8")
elseif(TORCHQP_SANITIZE)
  set(no_cuda "nvcc does not take -fsanitize")
elseif(TORCHQP_BUILD_PYTHON AND NOT TORCHQP_TORCH_CUDA)
  set(no_kernels "torch ${TORCHQP_TORCH_VERSION} is a build without CUDA")
elseif(TORCHQP_BUILD_PYTHON)
  # One process has one CUDA runtime, and that is torch's.
  string(REGEX MATCH "^[0-9]+" torch_major "${TORCHQP_TORCH_CUDA}")
  string(REGEX MATCH "^[0-9]+" nvcc_major "${TORCHQP_CUDA_COMPILER}")
  if(NOT torch_major STREQUAL nvcc_major)
    set(no_kernels "torch has CUDA ${TORCHQP_TORCH_CUDA}, nvcc is ${TORCHQP_CUDA_COMPILER}")
  endif()
endif()
if(TORCHQP_CUDA STREQUAL "AUTO")
  # Minutes of compilation for a library that nothing here would use.
  string(APPEND no_cuda "${no_kernels}")
elseif(TORCHQP_CUDA AND no_cuda)
  message(FATAL_ERROR "TORCHQP_CUDA=${TORCHQP_CUDA}, but ${no_cuda}")
endif()
if(no_cuda)
  message(STATUS "No CUDA kernels: ${no_cuda}")
  return()
elseif(no_kernels)
  message(WARNING "No CUDA kernels in the operators: ${no_kernels}")
endif()

# "8.0;9.0+PTX" -> "80-real;90": the latter is machine code and PTX.
function(torchqp_architectures torch_list result)
  string(REGEX REPLACE "[ ,]+" ";" torch_list "${torch_list}")
  set(architectures "")
  foreach(entry IN LISTS torch_list)
    if(entry MATCHES "^([0-9]+)\\.([0-9][af]?)(\\+PTX)?$")
      set(suffix "-real")
      if(CMAKE_MATCH_3)
        set(suffix "")
      endif()
      list(APPEND architectures "${CMAKE_MATCH_1}${CMAKE_MATCH_2}${suffix}")
    elseif(entry STREQUAL "native")
      list(APPEND architectures native)
    elseif(entry)
      message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST: expected native or versions such as \"8.0;9.0+PTX\", "
                          "got ${entry}")
    endif()
  endforeach()
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()

if(TORCH_CUDA_ARCH_LIST)
  torchqp_architectures("${TORCH_CUDA_ARCH_LIST}" CMAKE_CUDA_ARCHITECTURES)
elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # One for each generation with different instructions, since each costs minutes: code for 8.0 runs
  # on all of 8.x, and what is newer than 9.0 compiles the PTX when a kernel is first used.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90)
endif()
set(CMAKE_CUDA_COMPILER "${TORCHQP_NVCC}")
if(NOT DEFINED CMAKE_CUDA_HOST_COMPILER)
  set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")  # one ABI for both halves
endif()
# The shared runtime, which torch has loaded already: a copy of our own would keep its own current
# device, and errors that torch cannot clear.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(NOT TARGET CUDA::cublas OR NOT TARGET CUDA::cusolver)
  message(FATAL_ERROR "The CUDA toolkit in ${CUDAToolkit_ROOT_DIR} is without cuBLAS or cuSOLVER: install "
                      "them with their headers, or build with -DTORCHQP_CUDA=OFF")
endif()
if(TORCHQP_BUILD_PYTHON AND NOT no_kernels)
  set(TORCHQP_CUDA_KERNELS TRUE)
endif()

# What torch.cuda.get_arch_list() calls them.
set(listed ${CMAKE_CUDA_ARCHITECTURES})
list(TRANSFORM listed REPLACE "^native$" "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")
list(TRANSFORM listed REPLACE "^all$" "${CMAKE_CUDA_ARCHITECTURES_ALL}")
list(TRANSFORM listed REPLACE "^all-major$" "${CMAKE_CUDA_ARCHITECTURES_ALL_MAJOR}")
foreach(entry IN LISTS listed)
  string(REGEX MATCH "^[0-9]+[af]?" number "${entry}")
  if(NOT number)
    message(FATAL_ERROR "native GPU architectures asked for, but there is no GPU here: name versions in "
                        "TORCH_CUDA_ARCH_LIST")
  endif()
  if(NOT entry MATCHES "-virtual$")
    list(APPEND TORCHQP_CUDA_ARCHITECTURES "sm_${number}")
  endif()
  if(NOT entry MATCHES "-real$")
    list(APPEND TORCHQP_CUDA_ARCHITECTURES "compute_${number}")
  endif()
endforeach()
message(STATUS "CUDA: nvcc ${TORCHQP_CUDA_COMPILER} for ${TORCHQP_CUDA_ARCHITECTURES}")
