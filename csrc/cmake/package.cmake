# find_package(torchqp) for C++ programs; torchqpConfig.cmake.in says what it gives.
include(CMakePackageConfigHelpers)
set(config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/torchqp")
configure_package_config_file("${PROJECT_SOURCE_DIR}/csrc/cmake/torchqpConfig.cmake.in"
                              torchqpConfig.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(torchqpConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT torchqp FILE torchqpTargets.cmake NAMESPACE torchqp::
        DESTINATION ${config_dir} COMPONENT cpp)
if(TARGET torchqp_cuda)
  install(EXPORT torchqp_cuda FILE torchqpCudaTargets.cmake NAMESPACE torchqp::
          DESTINATION ${config_dir} COMPONENT cpp)
endif()
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/torchqpConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/torchqpConfigVersion.cmake"
        DESTINATION ${config_dir} COMPONENT cpp)
