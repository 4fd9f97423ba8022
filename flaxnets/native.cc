// The gradient of a convolution's kernel, for XLA's CPU backend to call.
//
// For each row of taps it is one product of matrices, summed over the output's pixels: of the part
// of an input's row that lies under that row of taps (size x channels numbers, which are neighbours
// in memory) with the gradient at the output (features numbers). A strip of the output's rows is
// copied at a time, with zeros where the padding is, into buffers that stay in a core's cache. From
// there a tile of the product is summed in the processor's registers.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kAccumulators = 24;  // of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kAccumulators = 12;  // of 16
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kAccumulators = 24;
#else
constexpr int kVectorBytes = 16, kAccumulators = 12;
#endif

// At most so many of the output's pixels are summed at a time, so that rounding errors stay small,
// and no fewer if they can be had: reading and writing the sums must not be what takes the time.
constexpr int64_t kStripPixels = 512;
// At most so many bytes of them, of one picture: half of a core's second-level cache (measured).
constexpr int64_t kStripBytes = 1 << 19;

template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

int64_t RoundUp(int64_t number, int64_t unit) { return (number + unit - 1) / unit * unit; }

// How to go through the pixels of one operand: numbers from one to the next in each direction.
struct Steps {
  int64_t picture, row, column;
};

struct Pixels {
  int64_t pictures, rows, columns;
};

struct Convolution {
  int64_t height, width, channels;  // of the input
  int64_t rows, columns, features;  // of the output
  int64_t size, stride, padding;    // of the kernel

  int64_t window() const { return size * channels; }
  int64_t padded_width() const { return width + 2 * padding; }
  int64_t rows_read(int64_t rows) const { return (rows - 1) * stride + size; }
};

// Where sums are put: that of a's number i and b's number j at to[i * a_step + j * b_step]. One of
// the steps is 1.
template <class T>
struct Sums {
  T* to;
  int64_t a_step, b_step;
  bool begin;  // instead of adding to what is there

  Sums At(int64_t i, int64_t j) const {
    return {to + i * a_step + j * b_step, a_step, b_step, begin};
  }
};

// How many numbers of one operand are multiplied with so many vectors of the other at a time.
// Twelve sums are enough to keep the processor's multipliers busy.
constexpr int64_t TileHeight(int64_t vectors) {
  return vectors == 1 ? 12 : kAccumulators / vectors;
}

// A tile of the product, of TileHeight(kVectors) numbers of a and kVectors vectors of b. What lies
// beyond the first `high` and `wide` of them is computed and not stored.
template <class T, int kVectors>
void MultiplyTile(const T* a, Steps a_steps, int64_t high, const T* b, Steps b_steps, int64_t wide,
                  Pixels pixels, Sums<T> sums) {
  constexpr int kHigh = TileHeight(kVectors);
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T))));

  Vector tile[kHigh][kVectors] = {};
  for (int64_t picture = 0; picture < pixels.pictures; ++picture) {
    for (int64_t row = 0; row < pixels.rows; ++row) {
      const T* left = a + picture * a_steps.picture + row * a_steps.row;
      const T* right = b + picture * b_steps.picture + row * b_steps.row;
      for (int64_t column = 0; column < pixels.columns; ++column) {
        Vector vectors[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          vectors[v] = *reinterpret_cast<const Unaligned*>(right + v * kLanes<T>);
        }
#pragma GCC unroll 24
        for (int i = 0; i < kHigh; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) tile[i][v] += left[i] * vectors[v];
        }
        left += a_steps.column;
        right += b_steps.column;
      }
    }
  }

  T numbers[kHigh][kVectors * kLanes<T>];
  std::memcpy(numbers, tile, sizeof(numbers));
  auto put = [&](T& sum, T number) { sum = sums.begin ? number : sum + number; };
  if (sums.b_step == 1) {
    for (int64_t i = 0; i < high; ++i) {
      for (int64_t j = 0; j < wide; ++j) put(sums.to[i * sums.a_step + j], numbers[i][j]);
    }
  } else {
    for (int64_t j = 0; j < wide; ++j) {
      for (int64_t i = 0; i < high; ++i) put(sums.to[i + j * sums.b_step], numbers[i][j]);
    }
  }
}

// The sums over pixels of each of a's numbers times each of b's.
template <class T>
void Multiply(const T* a, Steps a_steps, int64_t high, const T* b, Steps b_steps, int64_t wide,
              Pixels pixels, Sums<T> sums) {
  const bool low = RoundUp(high, TileHeight(3)) <= RoundUp(high, TileHeight(2));

  for (int64_t j = 0; j < wide;) {
    const int64_t left = (wide - j + kLanes<T> - 1) / kLanes<T>;
    const int64_t vectors = left == 1 ? 1 : (low && left != 2 && left != 4) ? 3 : 2;
    const int64_t tile_high = TileHeight(vectors), tile_wide = vectors * kLanes<T>;
    const auto multiply = vectors == 1   ? MultiplyTile<T, 1>
                          : vectors == 2 ? MultiplyTile<T, 2>
                                         : MultiplyTile<T, 3>;
    for (int64_t i = 0; i < high; i += tile_high) {
      multiply(a + i, a_steps, std::min(tile_high, high - i), b + j, b_steps,
               std::min(tile_wide, wide - j), pixels, sums.At(i, j));
    }
    j += tile_wide;
  }
}

// A buffer of the calling thread's that is kept from one call to the next.
template <class T, int kWhich>
T* Buffer(int64_t numbers) {
  thread_local std::vector<T> buffer;
  const size_t needed = numbers + kAccumulators + 3 * kLanes<T>;  // what a last tile reads beyond
  if (buffer.size() < needed) buffer.resize(needed);
  return buffer.data();
}

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
                   Sums<T>{taps, c.features, 1, begin});
        } else {
          Multiply(gradient_strips, of_gradient, features, window, of_images, c.window(), pixels,
                   Sums<T>{taps, 1, c.features, begin});
        }
      }
    }
  }
}

// Calls work(0), ..., work(tasks - 1), on the calling thread and those of the pool that are free.
template <class Work>
void InParallel(ffi::ThreadPool pool, int64_t tasks, const Work& work) {
  struct Progress {
    std::atomic<int64_t> begun{0};
    int64_t ended = 0;
    std::mutex mutex;
    std::condition_variable all_ended;
  };
  auto progress = std::make_shared<Progress>();
  auto take_part = [progress, tasks, &work] {  // A late one finds no task, and no work.
    for (int64_t task; (task = progress->begun++) < tasks;) {
      work(task);
      std::lock_guard lock(progress->mutex);
      if (++progress->ended == tasks) progress->all_ended.notify_one();
    }
  };
  const int64_t helpers = std::min(tasks, pool.num_threads()) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) {
    auto copy = take_part;
    pool.Schedule(std::move(copy));
  }
  take_part();
  std::unique_lock lock(progress->mutex);
  progress->all_ended.wait(lock, [&] { return progress->ended == tasks; });
}

// images (S, N, H, W, C) and gradient (S, N, H', W', O) to sums (S, k, k, C, O): one for each share
// of the pictures.
template <ffi::DataType kType>
ffi::Error KernelGradients(ffi::ThreadPool pool, ffi::Buffer<kType> images,
                           ffi::Buffer<kType> gradient, ffi::ResultBuffer<kType> sums,
                           int64_t stride, int64_t padding) {
  using T = ffi::NativeType<kType>;
  const auto in = images.dimensions(), out = gradient.dimensions(), kernel = sums->dimensions();
  const Convolution c = {in[2], in[3], in[4], out[2], out[3], out[4], kernel[1], stride, padding};
  const int64_t shares = in[0], pictures = in[1];
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

#define FLAXNETS_KERNEL_GRADIENTS(name, type)                                          \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, KernelGradients<type>,                           \
                                ffi::Ffi::Bind()                                       \
                                    .Ctx<ffi::ThreadPool>()                            \
                                    .Arg<ffi::Buffer<type>>()                          \
                                    .Arg<ffi::Buffer<type>>()                          \
                                    .Ret<ffi::Buffer<type>>()                          \
                                    .Attr<int64_t>("stride")                           \
                                    .Attr<int64_t>("padding"))

FLAXNETS_KERNEL_GRADIENTS(kernel_gradients_float32, ffi::F32);
FLAXNETS_KERNEL_GRADIENTS(kernel_gradients_float64, ffi::F64);
