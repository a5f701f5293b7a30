// What `products.h` computes, of duals: arrays of features are [component or row][2][BLOCK][width].
#pragma once

#include "dual.h"
#include "products.h"

namespace mdpot {

// Each atom's y from l = 1 on divided by √(1 + ⟨y²⟩); the factors, and their derivatives, into factor[2][BLOCK].
template <class T> void dual_normalize(const Sizes& z, T* y, T* factor) {
  const int half = BLOCK * z.width, components = z.components - 1;
  for (int a = 0; a < BLOCK; a++) {
    T* of = y + 2 * half + a * z.width;
    Vector<T> squares = all<T>(0), slopes = all<T>(0);
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>) {
        const Dual<T> v = load_dual<T>(of + 2 * m * half + k, half);
        squares += v.value * v.value;
        slopes += v.value * v.slope;
      }
    const T n = T(components * z.features), f = T(1) / std::sqrt(T(1) + sum<T>(squares) / n);
    factor[a] = f;
    factor[BLOCK + a] = -f * f * f * sum<T>(slopes) / n;
    const Dual<T> by{all<T>(f), all<T>(factor[BLOCK + a])};
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>) {
        T* at = of + 2 * m * half + k;
        store_dual<T>(at, half, by * load_dual<T>(at, half));
      }
  }
}

// dy from the derivative by the normalized y to that by y before.
template <class T> void dual_normalize_back(const Sizes& z, const T* y, const T* factor, T* dy) {
  const int half = BLOCK * z.width, components = z.components - 1;
  for (int a = 0; a < BLOCK; a++) {
    const T* of = y + 2 * half + a * z.width;
    T* d = dy + 2 * half + a * z.width;
    Dual<T> overlap{};
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>)
        overlap += load_dual<T>(of + 2 * m * half + k, half) * load_dual<T>(d + 2 * m * half + k, half);
    const Dual<T> total{all<T>(sum<T>(overlap.value)), all<T>(sum<T>(overlap.slope))};
    const Dual<T> by{all<T>(factor[a]), all<T>(factor[BLOCK + a])};
    const Dual<T> along = T(-1) / T(components * z.features) * (by * total);
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>) {
        T* at = d + 2 * m * half + k;
        store_dual<T>(at, half, by * load_dual<T>(at, half) + along * load_dual<T>(of + 2 * m * half + k, half));
      }
  }
}

}  // namespace mdpot
