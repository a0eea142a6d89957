# torchqp_warnings: linked by every target of ours, never by what we export.
#
# nvcc's own front end warns too. Spilled registers are no warning but part of a kernel's stack, which
# the tests hold to a budget. The host compiler sees what nvcc generates, where a warning would not
# be about our lines, hence is no error there.
add_library(torchqp_warnings INTERFACE)
target_compile_options(torchqp_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<BOOL:${TORCHQP_WERROR}>:-Werror>>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra
                             $<$<BOOL:${TORCHQP_WERROR}>:--Werror=all-warnings>>)
