// The functions that XLA's CPU backend calls.

#include "channel_sums.h"
#include "expansion.h"
#include "kernel_gradient.h"
#include "narrow_convolution.h"
#include "xla/ffi/api/ffi.h"

#define FLAXNETS_IN(type) .Arg<ffi::Buffer<type>>()
#define FLAXNETS_OUT(type) .Ret<ffi::Buffer<type>>()
#define FLAXNETS_2(part, type) part(type) part(type)
#define FLAXNETS_3(part, type) part(type) FLAXNETS_2(part, type)
#define FLAXNETS_4(part, type) part(type) FLAXNETS_3(part, type)
#define FLAXNETS_5(part, type) part(type) FLAXNETS_4(part, type)
#define FLAXNETS_7(part, type) FLAXNETS_2(part, type) FLAXNETS_5(part, type)

#define FLAXNETS_HANDLER(name, function, binding) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() binding)

#define FLAXNETS_HANDLERS(name, type)                                                        \
  FLAXNETS_HANDLER(kernel_gradients_##name, KernelGradients<type>,                           \
                   FLAXNETS_2(FLAXNETS_IN, type) FLAXNETS_OUT(type)                          \
                       .Attr<int64_t>("stride").Attr<int64_t>("padding"));                   \
  FLAXNETS_HANDLER(expansions_##name, Expansions<type>,                                      \
                   FLAXNETS_5(FLAXNETS_IN, type) FLAXNETS_OUT(type));                        \
  FLAXNETS_HANDLER(expansion_gradients_##name, ExpansionGradients<type>,                     \
                   FLAXNETS_7(FLAXNETS_IN, type) FLAXNETS_4(FLAXNETS_OUT, type));            \
  FLAXNETS_HANDLER(channel_moments_##name, ChannelMoments<type>,                             \
                   FLAXNETS_IN(type) FLAXNETS_OUT(type));                                    \
  FLAXNETS_HANDLER(channel_means_##name, ChannelMeans<type>,                                 \
                   FLAXNETS_2(FLAXNETS_IN, type) FLAXNETS_OUT(type));                        \
  FLAXNETS_HANDLER(narrow_convolutions_##name, NarrowConvolutions<type>,                     \
                   FLAXNETS_2(FLAXNETS_IN, type) FLAXNETS_OUT(type))

FLAXNETS_HANDLERS(float32, ffi::F32);
FLAXNETS_HANDLERS(float64, ffi::F64);
