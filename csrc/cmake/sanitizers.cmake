# TORCHQP_SANITIZE=address,undefined, thread or integer: the whole build, since mixed ones report
# falsely. Meant for -DTORCHQP_BUILD_PYTHON=OFF -DTORCHQP_BUILD_TESTS=ON: torch itself is not
# instrumented.
if(TORCHQP_SANITIZE)
  add_compile_options(-fsanitize=${TORCHQP_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -O1)
  add_link_options(-fsanitize=${TORCHQP_SANITIZE})
  if(TORCHQP_SANITIZE MATCHES "integer")
    add_compile_options("-fsanitize-ignorelist=${CMAKE_CURRENT_LIST_DIR}/integer_ignorelist.txt")
  endif()
endif()
