// A dense layer's scale, ReLU and 1x1 convolution, and their gradients.
//
// What lies between the maps and the convolution is computed for a block of pixels and a slab of
// channels at a time, which stay in a core's cache. Channels at either end that the layer does not
// read, all of whose numbers are zero, are skipped.

#ifndef FLAXNETS_EXPANSION_H_
#define FLAXNETS_EXPANSION_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "product.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

constexpr int64_t kBlockPixels = 128;
constexpr int64_t kSlab = 256;        // channels; and the most features
constexpr int64_t kRow = kSlab + 16;  // numbers from one pixel to the next in a block

// relu((maps - mean) * scale + bias) @ kernel.
template <class T>
struct Expansion {
  int64_t channels, features;
  const T *mean, *scale, *bias;  // (channels)
  const T* kernel;               // (channels, features)

  int64_t lanes() const { return RoundUp(features, kLanes<T>); }

  bool Reads(int64_t channel) const {
    auto zero = [](T number) { return number == 0; };
    const T* weights = kernel + channel * features;
    return !(zero(scale[channel]) && zero(bias[channel]) &&
             std::all_of(weights, weights + features, zero));
  }

  // relu((maps - mean) * scale + bias) of a block of pixels, for `wide` channels from the first on.
  void Activate(const T* maps, int64_t pixels, int64_t first, int64_t wide, T* active) const {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const T* from = maps + pixel * channels + first;
      T* to = active + pixel * kRow;
      OverVectors<T>(wide, [&](auto zero, int64_t i) {
        using V = decltype(zero);
        const V centered = Load<V>(from + i) - Load<V>(mean + first + i);
        const V sum = centered * Load<V>(scale + first + i) + Load<V>(bias + first + i);
        Store<V>(sum < zero ? zero : sum, to + i);  // NaN stays
      });
    }
  }
};

// That of one share, of mean, scale and bias (S, C) and kernel (S, C, F).
template <class T, class Array>
Expansion<T> ExpansionOf(int64_t share, const Array& mean, const Array& scale, const Array& bias,
                         const Array& kernel) {
  const int64_t channels = kernel.dimensions()[1], features = kernel.dimensions()[2];
  const int64_t skipped = share * channels;
  return {channels,
          features,
          mean.typed_data() + skipped,
          scale.typed_data() + skipped,
          bias.typed_data() + skipped,
          kernel.typed_data() + skipped * features};
}

// A range of channels, or of pixels.
struct Range {
  int64_t first, last;
};

// Without the channels at either end that are not read.
template <class T>
Range ChannelsRead(const Expansion<T>& expansion) {
  Range read = {0, expansion.channels};
  while (read.first < read.last && !expansion.Reads(read.first)) ++read.first;
  while (read.first < read.last && !expansion.Reads(read.last - 1)) --read.last;
  return read;
}

// The kernel's rows with room for whole vectors, (channels, lanes).
template <class T>
std::vector<T> PaddedKernel(const Expansion<T>& expansion) {
  std::vector<T> padded(expansion.channels * expansion.lanes() + 3 * kLanes<T>);
  for (int64_t channel = 0; channel < expansion.channels; ++channel) {
    std::copy_n(expansion.kernel + channel * expansion.features, expansion.features,
                padded.data() + channel * expansion.lanes());
  }
  return padded;
}

// (features, channels and room for whole vectors).
template <class T>
std::vector<T> TransposedKernel(const Expansion<T>& expansion) {
  const int64_t row = expansion.channels;
  std::vector<T> transposed(expansion.features * row + 3 * kLanes<T>);
  for (int64_t first = 0; first < row; first += kLanes<T>) {  // a cache line of each feature's
    const int64_t last = std::min(row, first + kLanes<T>);
    for (int64_t feature = 0; feature < expansion.features; ++feature) {
      for (int64_t channel = first; channel < last; ++channel) {
        transposed[feature * row + channel] =
            expansion.kernel[channel * expansion.features + feature];
      }
    }
  }
  return transposed;
}

template <class T, int kWhich>
T* BlockBuffer() {
  return Buffer<T, kWhich>((kBlockPixels + kAccumulators) * kRow);
}

// That part of the block that follows one of maps, which is as large a part of it as a slab is.
template <class T>
Ahead NextBlock(const T* block, int64_t pixels, int64_t channels, int64_t first, int64_t wide) {
  return {block + (channels + first) * pixels, pixels * wide * int64_t{sizeof(T)}};
}

template <class T>
void Expand(const Expansion<T>& expansion, Range channels, const std::vector<T>& padded_kernel,
            const T* maps, Range pixels, T* output) {
  T* active = BlockBuffer<T, 2>();
  const int64_t features = expansion.features, lanes = expansion.lanes();
  for (int64_t pixel = pixels.first; pixel < pixels.last; pixel += kBlockPixels) {
    const int64_t high = std::min(kBlockPixels, pixels.last - pixel);
    const T* block = maps + pixel * expansion.channels;
    T* to = output + pixel * features;
    if (channels.first == channels.last) std::fill_n(to, high * features, T{0});
    for (int64_t first = channels.first; first < channels.last; first += kSlab) {
      const int64_t wide = std::min(kSlab, channels.last - first);
      expansion.Activate(block, high, first, wide, active);
      Multiply<T, kRow>(active, Steps{0, 0, 1}, high, padded_kernel.data() + first * lanes,
                        Steps{0, 0, lanes}, features, Pixels{1, 1, wide},
                        Put<T>{to, features, 1, first == channels.first},
                        NextBlock(block, high, expansion.channels, first, wide));
    }
  }
}

// What a thread adds up.
template <class T>
struct ExpansionSums {
  std::vector<double> scale, bias;  // (channels)
  std::vector<T> kernel;            // (channels, features)

  explicit ExpansionSums(const Expansion<T>& expansion)
      : scale(expansion.channels),
        bias(expansion.channels),
        kernel(expansion.channels * expansion.features) {}
};

// What becomes of a block's gradient behind ReLU: it goes on through ReLU and scale.
template <class T>
struct AddToTotal {
  const T *maps, *active;
  const T *mean, *scale;
  int64_t channels;
  T* total;
  T of_scale[kSlab], of_bias[kSlab];

  template <int64_t kWide>
  void operator()(const T (*gradient)[kWide], int64_t pixel, int64_t high, int64_t channel,
                  int64_t wide) {
    OverVectors<T>(wide, [&](auto zero, int64_t i) {
      using V = decltype(zero);
      const int64_t c = channel + i;
      V scale_sum = zero, bias_sum = zero;
      for (int64_t row = 0; row < high; ++row) {
        const V active_here = Load<V>(active + (pixel + row) * kRow + c);
        const V passed = active_here > zero ? Load<V>(&gradient[row][i]) : zero;
        const int64_t place = (pixel + row) * channels + c;
        bias_sum += passed;
        scale_sum += passed * (Load<V>(maps + place) - Load<V>(mean + c));
        Store<V>(Load<V>(total + place) + passed * Load<V>(scale + c), total + place);
      }
      Store<V>(Load<V>(of_bias + c) + bias_sum, of_bias + c);
      Store<V>(Load<V>(of_scale + c) + scale_sum, of_scale + c);
    });
  }
};

// Adds the gradient of the maps to the total, and those of the expansion to sums.
template <class T>
void AddExpansionGradients(const Expansion<T>& expansion, Range channels,
                           const std::vector<T>& transposed_kernel, const T* maps,
                           const T* gradient, Range pixels, T* total, ExpansionSums<T>& sums) {
  T *active = BlockBuffer<T, 2>(), *of_output = BlockBuffer<T, 3>();
  const int64_t features = expansion.features;
  for (int64_t pixel = pixels.first; pixel < pixels.last; pixel += kBlockPixels) {
    const int64_t high = std::min(kBlockPixels, pixels.last - pixel);
    const T* block = maps + pixel * expansion.channels;
    T* total_block = total + pixel * expansion.channels;
    for (int64_t i = 0; i < high; ++i) {
      std::copy_n(gradient + (pixel + i) * features, features, of_output + i * kRow);
    }
    for (int64_t first = channels.first; first < channels.last; first += kSlab) {
      const int64_t wide = std::min(kSlab, channels.last - first);
      expansion.Activate(block, high, first, wide, active);
      Multiply<T>(active, Steps{0, 0, kRow}, wide, of_output, Steps{0, 0, kRow}, features,
                  Pixels{1, 1, high},
                  Put<T>{sums.kernel.data() + first * features, features, 1, false},
                  NextBlock(block, high, expansion.channels, first, wide));
      AddToTotal<T> add = {block + first,           active,
                           expansion.mean + first,  expansion.scale + first,
                           expansion.channels,      total_block + first};
      Multiply<T, kRow>(of_output, Steps{0, 0, 1}, high, transposed_kernel.data() + first,
                        Steps{0, 0, expansion.channels}, wide, Pixels{1, 1, features}, add,
                        NextBlock(total_block, high, expansion.channels, first, wide));
      for (int64_t i = 0; i < wide; ++i) {
        sums.scale[first + i] += add.of_scale[i];
        sums.bias[first + i] += add.of_bias[i];
      }
    }
  }
}

// A thread's part of the pixels, in whole blocks.
inline Range PartOf(int64_t pixels, int64_t part, int64_t parts) {
  auto bound = [&](int64_t i) {
    return std::min(pixels, RoundUp(i * pixels / parts, kBlockPixels));
  };
  return {bound(part), bound(part + 1)};
}

// maps (N, H, W, C), mean, scale and bias (S, C) and kernel (S, C, F) to output (N, H, W, F), for
// each share of the N pictures.
template <ffi::DataType kType>
ffi::Error Expansions(ffi::ThreadPool pool, ffi::Buffer<kType> maps, ffi::Buffer<kType> mean,
                      ffi::Buffer<kType> scale, ffi::Buffer<kType> bias,
                      ffi::Buffer<kType> kernel, ffi::ResultBuffer<kType> output) {
  using T = ffi::NativeType<kType>;
  const int64_t shares = kernel.dimensions()[0], channels = kernel.dimensions()[1];
  const int64_t features = kernel.dimensions()[2];
  const int64_t pixels = maps.element_count() / (shares * channels);
  const int64_t parts = 4 * std::max(int64_t{1}, pool.num_threads());
  for (int64_t share = 0; share < shares; ++share) {
    const int64_t skipped = share * channels;
    const Expansion<T> expansion = ExpansionOf<T>(share, mean, scale, bias, kernel);
    const Range read = ChannelsRead(expansion);
    const std::vector<T> padded_kernel = PaddedKernel(expansion);
    InParallel(pool, parts, [&](int64_t part) {
      Expand(expansion, read, padded_kernel, maps.typed_data() + skipped * pixels,
             PartOf(pixels, part, parts), output->typed_data() + share * pixels * features);
    });
  }
  return ffi::Error::Success();
}

// total and maps (N, H, W, C), gradient (N, H, W, F) at the output, and the rest as above to a new
// total in the same place, of_scale and of_bias (S, C) and of_kernel (S, C, F).
template <ffi::DataType kType>
ffi::Error ExpansionGradients(ffi::ThreadPool pool, ffi::Buffer<kType> total,
                              ffi::Buffer<kType> maps, ffi::Buffer<kType> gradient,
                              ffi::Buffer<kType> mean, ffi::Buffer<kType> scale,
                              ffi::Buffer<kType> bias, ffi::Buffer<kType> kernel,
                              ffi::ResultBuffer<kType> new_total, ffi::ResultBuffer<kType> of_scale,
                              ffi::ResultBuffer<kType> of_bias,
                              ffi::ResultBuffer<kType> of_kernel) {
  using T = ffi::NativeType<kType>;
  const int64_t shares = kernel.dimensions()[0], channels = kernel.dimensions()[1];
  const int64_t features = kernel.dimensions()[2];
  const int64_t pixels = maps.element_count() / (shares * channels);
  const int64_t parts = std::max(int64_t{1}, pool.num_threads());
  if (new_total->typed_data() != total.typed_data()) {
    std::copy_n(total.typed_data(), shares * pixels * channels, new_total->typed_data());
  }
  for (int64_t share = 0; share < shares; ++share) {
    const int64_t skipped = share * channels;
    const Expansion<T> expansion = ExpansionOf<T>(share, mean, scale, bias, kernel);
    const Range read = ChannelsRead(expansion);
    const std::vector<T> transposed_kernel = TransposedKernel(expansion);
    std::vector<ExpansionSums<T>> sums(parts, ExpansionSums<T>(expansion));
    InParallel(pool, parts, [&](int64_t part) {
      AddExpansionGradients(expansion, read, transposed_kernel,
                            maps.typed_data() + skipped * pixels,
                            gradient.typed_data() + share * pixels * features,
                            PartOf(pixels, part, parts), new_total->typed_data() + skipped * pixels,
                            sums[part]);
    });
    for (int64_t part = 1; part < parts; ++part) {
      auto add = [&](auto& to, const auto& from) {
        for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
      };
      add(sums[0].scale, sums[part].scale);
      add(sums[0].bias, sums[part].bias);
      add(sums[0].kernel, sums[part].kernel);
    }
    std::copy_n(sums[0].scale.data(), channels, of_scale->typed_data() + skipped);
    std::copy_n(sums[0].bias.data(), channels, of_bias->typed_data() + skipped);
    std::copy_n(sums[0].kernel.data(), channels * features,
                of_kernel->typed_data() + skipped * features);
  }
  return ffi::Error::Success();
}

}  // namespace

#endif  // FLAXNETS_EXPANSION_H_
