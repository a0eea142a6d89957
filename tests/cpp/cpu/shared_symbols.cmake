# Fails when OBJECT, compiled for the instruction set LEVEL, holds a function that the linker may
# merge with another level's: a machine without that instruction set would then run it and die.
execute_process(COMMAND "${NM}" -C --defined-only "${OBJECT}"
                OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
if(NOT symbols MATCHES " T torchqp::cpu::kernels_${LEVEL}")
  message(FATAL_ERROR "kernels_${LEVEL} is missing in ${OBJECT}")
endif()
string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
list(FILTER weak EXCLUDE REGEX "(^|[^a-z0-9_])${LEVEL}::")
if(weak)
  list(JOIN weak "\n" weak)
  message(FATAL_ERROR "Put these into the namespace of the level (core/config.hpp):\n${weak}")
endif()
