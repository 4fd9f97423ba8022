// The gradient of a convolution's kernel.
//
// For each row of taps it is one product of matrices, summed over the output's pixels: of the part
// of an input's row that lies under that row of taps (size x channels numbers, which are neighbours
// in memory) with the gradient at the output (features numbers). A strip of the output's rows is
// copied at a time, with zeros where the padding is, into buffers that stay in a core's cache. From
// there a tile of the product is summed in the processor's registers.

#ifndef FLAXNETS_KERNEL_GRADIENT_H_
#define FLAXNETS_KERNEL_GRADIENT_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "product.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

// At most so many of the output's pixels are summed at a time, so that rounding errors stay small,
// and no fewer if they can be had: reading and writing the sums must not be what takes the time.
constexpr int64_t kStripPixels = 512;
// At most so many bytes of them, of one picture: half of a core's second-level cache (measured).
constexpr int64_t kStripBytes = 1 << 19;

struct Convolution {
  int64_t height, width, channels;  // of the input
  int64_t rows, columns, features;  // of the output
  int64_t size, stride, padding;    // of the kernel

  int64_t window() const { return size * channels; }
  int64_t padded_width() const { return width + 2 * padding; }
  int64_t rows_read(int64_t rows) const { return (rows - 1) * stride + size; }
};

// The gradient of some features of a kernel, summed over some pictures, one at least.
template <class T>
void KernelGradient(const Convolution& c, int64_t pictures, int64_t features, const T* images,
                    const T* gradient, T* sums) {
  const int64_t row = c.padded_width() * c.channels;
  // One of the two is read as vectors, so is better not a small part of one.
  const bool features_as_vectors = features >= 2 * kLanes<T> || features >= c.window();
  const int64_t lanes = RoundUp(features, kLanes<T>);

  auto bytes = [&](int64_t rows) {
    return int64_t{sizeof(T)} * (c.rows_read(rows) * row + rows * c.columns * lanes);
  };
  int64_t rows = c.rows;
  while (rows > 1 && (rows * c.columns > kStripPixels || bytes(rows) > kStripBytes)) {
    rows = (rows + 1) / 2;
  }
  const int64_t together =
      rows < c.rows ? 1 : std::clamp(kStripPixels / (rows * c.columns), int64_t{1}, pictures);

  const int64_t image_strip = c.rows_read(rows) * row, gradient_strip = rows * c.columns * lanes;
  T* image_strips = Buffer<T, 0>(together * image_strip);
  T* gradient_strips = Buffer<T, 1>(together * gradient_strip);

  for (int64_t first = 0; first < pictures; first += together) {
    for (int64_t top = 0; top < c.rows; top += rows) {
      const Pixels pixels = {std::min(together, pictures - first), std::min(rows, c.rows - top),
                             c.columns};
      for (int64_t picture = 0; picture < pixels.pictures; ++picture) {
        T* to = image_strips + picture * image_strip;
        for (int64_t i = 0; i < c.rows_read(pixels.rows); ++i, to += row) {
          const int64_t y = top * c.stride + i - c.padding, edge = c.padding * c.channels;
          if (y < 0 || y >= c.height) {
            std::fill_n(to, row, T{0});
            continue;
          }
          const int64_t length = c.width * c.channels;
          std::fill_n(to, edge, T{0});
          std::copy_n(images + ((first + picture) * c.height + y) * length, length, to + edge);
          std::fill_n(to + edge + length, edge, T{0});
        }
        const T* from = gradient + ((first + picture) * c.rows + top) * c.columns * c.features;
        to = gradient_strips + picture * gradient_strip;
        for (int64_t i = 0; i < pixels.rows * c.columns; ++i) {
          std::copy_n(from + i * c.features, features, to + i * lanes);
        }
      }

      const Steps of_images = {image_strip, c.stride * row, c.stride * c.channels};
      const Steps of_gradient = {gradient_strip, c.columns * lanes, lanes};
      for (int64_t tap = 0; tap < c.size; ++tap) {
        const T* window = image_strips + tap * row;
        T* taps = sums + tap * c.window() * c.features;
        const bool begin = first == 0 && top == 0;
        if (features_as_vectors) {
          Multiply(window, of_images, c.window(), gradient_strips, of_gradient, features, pixels,
                   Put<T>{taps, c.features, 1, begin});
        } else {
          Multiply(gradient_strips, of_gradient, features, window, of_images, c.window(), pixels,
                   Put<T>{taps, 1, c.features, begin});
        }
      }
    }
  }
}

// images (N, H, W, C) and gradient (N, H', W', O) to sums (S, k, k, C, O), for each share of the N
// pictures.
template <ffi::DataType kType>
ffi::Error KernelGradients(ffi::ThreadPool pool, ffi::Buffer<kType> images,
                           ffi::Buffer<kType> gradient, ffi::ResultBuffer<kType> sums,
                           int64_t stride, int64_t padding) {
  using T = ffi::NativeType<kType>;
  const auto in = images.dimensions(), out = gradient.dimensions(), kernel = sums->dimensions();
  const Convolution c = {in[1], in[2], in[3], out[1], out[2], out[3], kernel[1], stride, padding};
  const int64_t shares = kernel[0], pictures = in[0] / shares;
  const int64_t threads = std::max(int64_t{1}, pool.num_threads());
  const int64_t image = c.height * c.width * c.channels, pixels = c.rows * c.columns;
  const int64_t numbers = c.size * c.window() * c.features;

  // Threads take some of the features each; or, where these are few, some of the pictures.
  const bool by_features = c.features >= 2 * kLanes<T> * threads;
  const int64_t blocks = by_features ? threads : 1;
  const int64_t parts =
      by_features
          ? 1
          : std::max(int64_t{1}, std::min({threads, pictures, pictures * pixels / kStripPixels}));
  auto first_feature = [&](int64_t block) {
    return std::min(c.features, RoundUp(block * c.features / blocks, kLanes<T>));
  };
  std::vector<T> others((parts - 1) * shares * numbers);
  auto sums_of = [&](int64_t share, int64_t part) {
    return part == 0 ? sums->typed_data() + share * numbers
                     : others.data() + (share * (parts - 1) + part - 1) * numbers;
  };
  InParallel(pool, shares * parts * blocks, [&](int64_t task) {
    const int64_t block = task % blocks, part = task / blocks % parts;
    const int64_t share = task / blocks / parts;
    const int64_t feature = first_feature(block), features = first_feature(block + 1) - feature;
    const int64_t first = part * pictures / parts, last = (part + 1) * pictures / parts;
    const int64_t skipped = share * pictures + first;
    KernelGradient(c, last - first, features, images.typed_data() + skipped * image,
                   gradient.typed_data() + skipped * pixels * c.features + feature,
                   sums_of(share, part) + feature);
  });
  for (int64_t share = 0; share < shares; ++share) {
    T* total = sums_of(share, 0);
    for (int64_t part = 1; part < parts; ++part) {
      const T* more = sums_of(share, part);
      for (int64_t i = 0; i < numbers; ++i) total[i] += more[i];
    }
  }
  return ffi::Error::Success();
}

}  // namespace

#endif  // FLAXNETS_KERNEL_GRADIENT_H_
