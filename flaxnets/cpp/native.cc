// The functions that XLA's CPU backend calls.

#include "expansion.h"
#include "kernel_gradient.h"
#include "xla/ffi/api/ffi.h"

#define FLAXNETS_FUNCTIONS(name, type)                                                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(kernel_gradients_##name, KernelGradients<type>,           \
                                ffi::Ffi::Bind()                                          \
                                    .Ctx<ffi::ThreadPool>()                               \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>()                             \
                                    .Attr<int64_t>("stride")                              \
                                    .Attr<int64_t>("padding"));                           \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(expansions_##name, Expansions<type>,                      \
                                ffi::Ffi::Bind()                                          \
                                    .Ctx<ffi::ThreadPool>()                               \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>());                           \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(expansion_gradients_##name, ExpansionGradients<type>,     \
                                ffi::Ffi::Bind()                                          \
                                    .Ctx<ffi::ThreadPool>()                               \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Arg<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>()                             \
                                    .Ret<ffi::Buffer<type>>())

FLAXNETS_FUNCTIONS(float32, ffi::F32);
FLAXNETS_FUNCTIONS(float64, ffi::F64);
