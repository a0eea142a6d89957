# torchqp_warnings: linked by every target of ours, never by what we export.
add_library(torchqp_warnings INTERFACE)
target_compile_options(torchqp_warnings INTERFACE
                       -Wall -Wextra $<$<BOOL:${TORCHQP_WERROR}>:-Werror>)
