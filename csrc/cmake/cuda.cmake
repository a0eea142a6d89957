# TORCHQP_CUDA_COMPILER: version of nvcc, or empty. The compiler decides, not a GPU: build machines
# have none.
set(TORCHQP_CUDA_COMPILER "")
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
  if(NOT TORCHQP_CUDA_COMPILER AND NOT TORCHQP_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "TORCHQP_CUDA=${TORCHQP_CUDA}, but there is no nvcc: put it on PATH "
                        "or set CUDA_HOME")
  endif()
endif()
