// Products of matrices that are summed in the processor's registers.

#ifndef FLAXNETS_PRODUCT_H_
#define FLAXNETS_PRODUCT_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

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

template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

int64_t RoundUp(int64_t number, int64_t unit) { return (number + unit - 1) / unit * unit; }

template <class T, int kBytes = kVectorBytes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kBytes)));
};

template <class V, class T>
V Load(const T* from) {
  V numbers;
  std::memcpy(&numbers, from, sizeof(V));
  return numbers;
}

template <class V, class T>
void Store(V numbers, T* to) {
  std::memcpy(to, &numbers, sizeof(V));
}

// Calls work(zero, i) for every i at which a vector begins, with a vector of zeros: vectors of half
// the size, and of half of that, follow, and single numbers at last.
template <class T, int kBytes = kVectorBytes, class Work>
void OverVectors(int64_t numbers, const Work& work, int64_t i = 0) {
  constexpr int64_t kNumbers = kBytes / sizeof(T);
  for (; i + kNumbers <= numbers; i += kNumbers) work(typename VectorOf<T, kBytes>::Type{}, i);
  if constexpr (kBytes > 16) {
    OverVectors<T, kBytes / 2>(numbers, work, i);
  } else {
    for (; i < numbers; ++i) work(T{}, i);
  }
}

// How to go through the pixels of one operand: numbers from one to the next in each direction.
struct Steps {
  int64_t picture, row, column;
};

struct Pixels {
  int64_t pictures, rows, columns;
};

// What becomes of sums: that of a's number i and b's number j is put to to[i * a_step + j * b_step].
// One of the steps is 1.
template <class T>
struct Put {
  T* to;
  int64_t a_step, b_step;
  bool begin;  // instead of adding to what is there

  template <int64_t kWide>
  void operator()(const T (*sums)[kWide], int64_t i, int64_t high, int64_t j, int64_t wide) const {
    T* corner = to + i * a_step + j * b_step;
    if (b_step == 1) {
      for (int64_t row = 0; row < high; ++row) {
        T* there = corner + row * a_step;
        OverVectors<T>(wide, [&](auto zero, int64_t i) {
          using V = decltype(zero);
          Store<V>((begin ? zero : Load<V>(there + i)) + Load<V>(&sums[row][i]), there + i);
        });
      }
    } else {
      for (int64_t column = 0; column < wide; ++column) {
        T* there = corner + column * b_step;
        for (int64_t row = 0; row < high; ++row) {
          there[row] = (begin ? T{0} : there[row]) + sums[row][column];
        }
      }
    }
  }
};

// Memory that is needed soon, and is fetched into the second-level cache meanwhile.
struct Ahead {
  const void* from = nullptr;
  int64_t bytes = 0;
};

// How many numbers of one operand are multiplied with so many vectors of the other at a time.
// Twelve sums are enough to keep the processor's multipliers busy.
constexpr int64_t TileHeight(int64_t vectors) {
  return vectors == 1 ? 12 : kAccumulators / vectors;
}

// A tile of the product, of TileHeight(kVectors) numbers of a, each kApart from the one before, and
// kVectors vectors of b.
template <class T, int kApart, int kVectors>
void MultiplyTile(const T* a, Steps a_steps, const T* b, Steps b_steps, Pixels pixels,
                  const char*& ahead, int64_t ahead_step, T (*sums)[kVectors * kLanes<T>]) {
  constexpr int kHigh = TileHeight(kVectors);
  using Vector = typename VectorOf<T>::Type;

  Vector tile[kHigh][kVectors] = {};
  for (int64_t picture = 0; picture < pixels.pictures; ++picture) {
    for (int64_t row = 0; row < pixels.rows; ++row) {
      const T* left = a + picture * a_steps.picture + row * a_steps.row;
      const T* right = b + picture * b_steps.picture + row * b_steps.row;
      for (int64_t column = 0; column < pixels.columns; ++column) {
        Vector vectors[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          vectors[v] = Load<Vector>(right + v * kLanes<T>);
        }
#pragma GCC unroll 24
        for (int i = 0; i < kHigh; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) tile[i][v] += left[i * kApart] * vectors[v];
        }
        left += a_steps.column;
        right += b_steps.column;
        __builtin_prefetch(ahead, 0, 2);
        ahead += ahead_step;
      }
    }
  }
  std::memcpy(sums, tile, sizeof(tile));
}

// Gives the sums over pixels of each of a's numbers, which are kApart apart, times each of b's to
// take(sums, i, high, j, wide): those of `high` numbers from the i-th on and `wide` from the j-th.
template <class T, int kApart = 1, class Take>
void Multiply(const T* a, Steps a_steps, int64_t high, const T* b, Steps b_steps, int64_t wide,
              Pixels pixels, Take&& take, Ahead ahead = {}) {
  const bool low = RoundUp(high, TileHeight(3)) <= RoundUp(high, TileHeight(2));

  const int64_t tiles = 1 + high * wide / (kAccumulators * kLanes<T>);  // about
  const int64_t turns = tiles * pixels.pictures * pixels.rows * pixels.columns;
  const char* next = ahead.bytes > 0 ? static_cast<const char*>(ahead.from)
                                     : reinterpret_cast<const char*>(a);
  int64_t j = 0;
  auto multiply = [&](auto vectors) {
    constexpr int64_t kHigh = TileHeight(vectors), kWide = vectors * kLanes<T>;
    T sums[kHigh][kWide];
    for (int64_t i = 0; i < high; i += kHigh) {
      MultiplyTile<T, kApart, vectors>(a + i * kApart, a_steps, b + j, b_steps, pixels, next,
                                       ahead.bytes / turns, sums);
      take(sums, i, std::min(kHigh, high - i), j, std::min(kWide, wide - j));
    }
    j += kWide;
  };
  while (j < wide) {
    const int64_t left = (wide - j + kLanes<T> - 1) / kLanes<T>;
    if (left == 1) {
      multiply(std::integral_constant<int, 1>());
    } else if (low && left != 2 && left != 4) {
      multiply(std::integral_constant<int, 3>());
    } else {
      multiply(std::integral_constant<int, 2>());
    }
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

}  // namespace

#endif  // FLAXNETS_PRODUCT_H_
