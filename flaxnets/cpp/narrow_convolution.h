// 3x3 convolutions, with a border of one zero, to so few features that they fill one vector or two.
//
// A number of the input belongs to nine sums. Along a row of pixels three of these are taken at
// once, as the sums of neighbouring pixels stay in registers: each number is read three times, not
// nine.

#ifndef FLAXNETS_NARROW_CONVOLUTION_H_
#define FLAXNETS_NARROW_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "product.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

constexpr int64_t kMostChannels = 64;  // and numbers from one pixel to the next in a buffer
constexpr int kPixelsAtOnce = kAccumulators == 24 ? 16 : 8;

struct NarrowConvolution {
  int64_t height, width, channels, features;

  template <class T>
  int64_t blocks() const {
    return RoundUp(features, kLanes<T>) / kLanes<T>;
  }
  int64_t buffer_row() const { return (width + 2 + kPixelsAtOnce) * kMostChannels; }
};

// A vector of features of kPixels neighbours in a row: rows are the three of the input that are
// read, and kernel (3, channels, 3, lanes).
template <class T, int kPixels>
void ConvolvePixels(const T* const rows[3], int64_t channels, const T* kernel, int64_t pixels,
                    int64_t features, int64_t step, T* output) {
  using Vector = typename VectorOf<T>::Type;
  Vector sums[kPixels] = {};
  for (int row = 0; row < 3; ++row) {
    const T* from = rows[row];
    for (int64_t channel = 0; channel < channels; ++channel, kernel += 3 * kLanes<T>) {
      const Vector left = Load<Vector>(kernel), middle = Load<Vector>(kernel + kLanes<T>);
      const Vector right = Load<Vector>(kernel + 2 * kLanes<T>);
#pragma GCC unroll 18
      for (int i = 0; i < kPixels + 2; ++i) {
        const T number = from[i * kMostChannels + channel];
        if (i < kPixels) sums[i] += number * left;
        if (i > 0 && i <= kPixels) sums[i - 1] += number * middle;
        if (i > 1) sums[i - 2] += number * right;
      }
    }
  }
  T numbers[kPixels][kLanes<T>];
  std::memcpy(numbers, sums, sizeof(sums));
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    OverVectors<T>(features, [&](auto zero, int64_t i) {
      Store(Load<decltype(zero)>(&numbers[pixel][i]), output + pixel * step + i);
    });
  }
}

// (3, 3, channels, features) to (blocks of lanes, 3 rows, channels, 3 columns, lanes), zeros beyond
// the features.
template <class T>
std::vector<T> KernelInBlocks(const NarrowConvolution& c, const T* kernel) {
  std::vector<T> blocks(c.blocks<T>() * 9 * c.channels * kLanes<T>);
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t column = 0; column < 3; ++column) {
      for (int64_t channel = 0; channel < c.channels; ++channel) {
        for (int64_t feature = 0; feature < c.features; ++feature, ++kernel) {
          const int64_t block = feature / kLanes<T>;
          const int64_t place = ((block * 3 + row) * c.channels + channel) * 3 + column;
          blocks[place * kLanes<T> + feature % kLanes<T>] = *kernel;
        }
      }
    }
  }
  return blocks;
}

// Some of a picture's rows.
template <class T>
void ConvolveRows(const NarrowConvolution& c, const T* picture, const std::vector<T>& kernel,
                  int64_t first, int64_t last, T* output) {
  T* buffer = Buffer<T, 5>(3 * c.buffer_row());
  auto row_of = [&](int64_t y) { return buffer + (y + 3) % 3 * c.buffer_row(); };
  auto read = [&](int64_t y) {
    T* to = row_of(y);
    const bool outside = y < 0 || y >= c.height;
    for (int64_t x = -1; x <= c.width; ++x, to += kMostChannels) {
      if (outside || x < 0 || x == c.width) {
        std::fill_n(to, c.channels, T{0});
      } else {
        const T* from = picture + (y * c.width + x) * c.channels;
        OverVectors<T>(c.channels, [&](auto zero, int64_t i) {
          Store(Load<decltype(zero)>(from + i), to + i);
        });
      }
    }
  };
  read(first - 1), read(first);
  for (int64_t y = first; y < last; ++y) {
    read(y + 1);
    for (int64_t x = 0; x < c.width; x += kPixelsAtOnce) {
      const int64_t pixels = std::min<int64_t>(kPixelsAtOnce, c.width - x);
      const T* const rows[3] = {row_of(y - 1) + x * kMostChannels, row_of(y) + x * kMostChannels,
                                row_of(y + 1) + x * kMostChannels};
      const auto convolve = pixels > kPixelsAtOnce / 2 ? ConvolvePixels<T, kPixelsAtOnce>
                                                       : ConvolvePixels<T, kPixelsAtOnce / 2>;
      for (int64_t block = 0; block < c.blocks<T>(); ++block) {
        const int64_t feature = block * kLanes<T>;
        convolve(rows, c.channels, kernel.data() + feature * 9 * c.channels, pixels,
                 std::min(kLanes<T>, c.features - feature), c.features,
                 output + (y * c.width + x) * c.features + feature);
      }
    }
  }
}

// images (N, H, W, C) and kernels (S, 3, 3, C, O) to output (N, H, W, O), for each share of the N
// pictures.
template <ffi::DataType kType>
ffi::Error NarrowConvolutions(ffi::ThreadPool pool, ffi::Buffer<kType> images,
                              ffi::Buffer<kType> kernels, ffi::ResultBuffer<kType> output) {
  using T = ffi::NativeType<kType>;
  const auto in = images.dimensions(), kernel = kernels.dimensions();
  const NarrowConvolution c = {in[1], in[2], in[3], kernel[4]};
  const int64_t shares = kernel[0], pictures = in[0] / shares, pixels = c.height * c.width;
  const int64_t threads = std::max(int64_t{1}, pool.num_threads());
  const int64_t bands = pictures >= threads ? 1 : std::min(threads, c.height);
  for (int64_t share = 0; share < shares; ++share) {
    const std::vector<T> blocks =
        KernelInBlocks(c, kernels.typed_data() + share * 9 * c.channels * c.features);
    InParallel(pool, pictures * bands, [&](int64_t task) {
      const int64_t picture = share * pictures + task / bands, band = task % bands;
      ConvolveRows(c, images.typed_data() + picture * pixels * c.channels, blocks,
                   band * c.height / bands, (band + 1) * c.height / bands,
                   output->typed_data() + picture * pixels * c.features);
    });
  }
  return ffi::Error::Success();
}

}  // namespace

#endif  // FLAXNETS_NARROW_CONVOLUTION_H_
