# torchqp_warnings: linked by every target of ours, never by what we export.
#
# nvcc's own front end and ptxas warn too: of spilled registers, which a kernel written for registers
# must not have. The host compiler sees what nvcc generates, where a warning would not be about our
# lines, hence is no error there.
add_library(torchqp_warnings INTERFACE)
target_compile_options(torchqp_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<BOOL:${TORCHQP_WERROR}>:-Werror>>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra -Xptxas=-warn-spills
                             $<$<BOOL:${TORCHQP_WERROR}>:--Werror=all-warnings>>)
