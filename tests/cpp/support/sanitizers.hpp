#pragma once
// The sanitizers that a program is compiled with. GCC tells by a macro, clang by a feature.

#if defined(__has_feature)
#define TORCHQP_HAS_FEATURE(name) __has_feature(name)
#else
#define TORCHQP_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || TORCHQP_HAS_FEATURE(address_sanitizer)
#define TORCHQP_ADDRESS_SANITIZER
#endif
#if defined(__SANITIZE_THREAD__) || TORCHQP_HAS_FEATURE(thread_sanitizer)
#define TORCHQP_THREAD_SANITIZER
#endif
#undef TORCHQP_HAS_FEATURE
