// What batch norm sums over all pixels of a channel.
//
// Blocks of pixels, which stay in a core's cache, are summed in float, and the blocks in double: as
// exact as it can be wanted, and read from memory once.

#ifndef FLAXNETS_CHANNEL_SUMS_H_
#define FLAXNETS_CHANNEL_SUMS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "product.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace {

// Pixels as rows of whole vectors: several neighbours are one row, if that fills vectors.
struct Rows {
  int64_t rows, width;  // width numbers each, a multiple of the channels

  template <class T>
  static Rows Of(int64_t pixels, int64_t channels) {
    const int64_t together = kLanes<T> / std::gcd(channels, kLanes<T>);
    return pixels % together == 0 ? Rows{pixels / together, channels * together}
                                  : Rows{pixels, channels};
  }

  // In a block of some 32 KiB.
  template <class T>
  int64_t Block() const {
    return std::clamp(int64_t{1 << 15} / (width * int64_t{sizeof(T)}), int64_t{8}, int64_t{128});
  }
};

// The mean of numbers and the sum of their squared distances from it.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  // Chan, Golub & LeVeque 1983, equations 1.5.
  void Add(const Moments& other) {
    if (other.count == 0) return;
    const double sum = count + other.count, distance = other.mean - mean;
    squares += other.squares + distance * distance * count * other.count / sum;
    mean += distance * other.count / sum;
    count = sum;
  }
};

// Adds those of each column of some rows to moments.
template <class T>
void AddMoments(const T* from, int64_t rows, int64_t width, Moments* moments) {
  OverVectors<T>(width, [&](auto zero, int64_t column) {
    using V = decltype(zero);
    V sum = zero;
    for (int64_t row = 0; row < rows; ++row) sum += Load<V>(from + row * width + column);
    const V mean = sum / T(rows);
    // The mean is rounded, and that may be more than its channel varies: so the sum is not zero.
    V distances = zero, squares = zero;
    for (int64_t row = 0; row < rows; ++row) {
      const V distance = Load<V>(from + row * width + column) - mean;
      distances += distance;
      squares += distance * distance;
    }
    constexpr int kNumbers = sizeof(V) / sizeof(T);
    T means[kNumbers], off[kNumbers], around[kNumbers];
    Store(mean, means), Store(distances, off), Store(squares, around);
    for (int i = 0; i < kNumbers; ++i) {
      const double count = rows, rest = off[i] / count;
      moments[column + i].Add({count, means[i] + rest, around[i] - rest * rest * count});
    }
  });
}

// Adds the sums of each column of some rows of a, and of a times b.
template <class T>
void AddSums(const T* a, const T* b, int64_t rows, int64_t width, double* sums, double* products) {
  OverVectors<T>(width, [&](auto zero, int64_t column) {
    using V = decltype(zero);
    V sum = zero, product = zero;
    for (int64_t row = 0; row < rows; ++row) {
      const V number = Load<V>(a + row * width + column);
      sum += number;
      product += number * Load<V>(b + row * width + column);
    }
    constexpr int kNumbers = sizeof(V) / sizeof(T);
    T block_sums[kNumbers], block_products[kNumbers];
    Store(sum, block_sums), Store(product, block_products);
    for (int i = 0; i < kNumbers; ++i) {
      sums[column + i] += block_sums[i];
      products[column + i] += block_products[i];
    }
  });
}

// Calls work(part, first, last): a thread's part of the rows.
template <class Work>
void InParts(ffi::ThreadPool pool, int64_t parts, int64_t rows, const Work& work) {
  InParallel(pool, parts, [&](int64_t part) {
    work(part, part * rows / parts, (part + 1) * rows / parts);
  });
}

// x (N, H, W, C) to moments (S, 3, C), for each share of the N pictures: the mean, what it is off
// by, being rounded, and the mean squared distance from it.
template <ffi::DataType kType>
ffi::Error ChannelMoments(ffi::ThreadPool pool, ffi::Buffer<kType> x,
                          ffi::ResultBuffer<kType> moments) {
  using T = ffi::NativeType<kType>;
  const int64_t shares = moments->dimensions()[0], channels = moments->dimensions()[2];
  const int64_t pixels = x.element_count() / (shares * channels);
  const Rows all = Rows::Of<T>(pixels, channels);
  const int64_t parts = std::clamp(pool.num_threads(), int64_t{1}, all.rows);
  for (int64_t share = 0; share < shares; ++share) {
    const T* from = x.typed_data() + share * pixels * channels;
    std::vector<Moments> columns(parts * all.width);
    InParts(pool, parts, all.rows, [&](int64_t part, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; row += all.Block<T>()) {
        AddMoments(from + row * all.width, std::min(all.Block<T>(), last - row), all.width,
                   columns.data() + part * all.width);
      }
    });
    T* mean = moments->typed_data() + share * 3 * channels;
    T *off = mean + channels, *var = off + channels;
    for (int64_t channel = 0; channel < channels; ++channel) {
      Moments total;
      for (int64_t i = channel; i < parts * all.width; i += channels) total.Add(columns[i]);
      mean[channel] = total.mean;
      off[channel] = total.mean - mean[channel];
      var[channel] = total.squares / total.count;
    }
  }
  return ffi::Error::Success();
}

// a and b (N, H, W, C) to means (S, 2, C), for each share of the N pictures: of a, and of a times
// b.
template <ffi::DataType kType>
ffi::Error ChannelMeans(ffi::ThreadPool pool, ffi::Buffer<kType> a, ffi::Buffer<kType> b,
                        ffi::ResultBuffer<kType> means) {
  using T = ffi::NativeType<kType>;
  const int64_t shares = means->dimensions()[0], channels = means->dimensions()[2];
  const int64_t pixels = a.element_count() / (shares * channels);
  const Rows all = Rows::Of<T>(pixels, channels);
  const int64_t parts = std::clamp(pool.num_threads(), int64_t{1}, all.rows);
  for (int64_t share = 0; share < shares; ++share) {
    const T* left = a.typed_data() + share * pixels * channels;
    const T* right = b.typed_data() + share * pixels * channels;
    std::vector<double> sums(parts * all.width), products(parts * all.width);
    InParts(pool, parts, all.rows, [&](int64_t part, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; row += all.Block<T>()) {
        const int64_t skipped = row * all.width;
        AddSums(left + skipped, right + skipped, std::min(all.Block<T>(), last - row), all.width,
                sums.data() + part * all.width, products.data() + part * all.width);
      }
    });
    T* mean = means->typed_data() + share * 2 * channels;
    T* product_mean = mean + channels;
    for (int64_t channel = 0; channel < channels; ++channel) {
      double sum = 0, product = 0;
      for (int64_t i = channel; i < parts * all.width; i += channels) {
        sum += sums[i];
        product += products[i];
      }
      mean[channel] = sum / pixels;
      product_mean[channel] = product / pixels;
    }
  }
  return ffi::Error::Success();
}

}  // namespace

#endif  // FLAXNETS_CHANNEL_SUMS_H_
