// What `products.h` computes, of duals: arrays of features are [component or row][2][BLOCK][width].
#pragma once

#include "dual.h"
#include "products.h"

namespace mdpot {

template <class T> MDPOT_INLINE Dual<T> sum_terms(const std::vector<Term<T>>& terms, const Dual<T>* y) {
  Dual<T> sum{};
  for (const Term<T>& term : terms) sum += term.coefficient * (y[term.first] * y[term.second]);
  return sum;
}

template <class T> MDPOT_INLINE void load_components(const T* y, int count, int half, Dual<T>* to) {
  for (int m = 0; m < count; m++) to[m] = load_dual<T>(y + 2 * m * half, half);
}

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

// All rows of the products into blocks, and the inputs that follow from them: the invariants y·y, then (y ⊗ y)·y.
template <class T> void dual_multiply_features(const Model<T>& model, const T* y, T* blocks, T* inputs) {
  const Sizes& z = model.sizes;
  const int half = BLOCK * z.width, stride = 2 * half;
  for (int k = 0; k < half; k += LANES<T>) {
    Dual<T> of[MOST_COMPONENTS], rows[MOST_ROWS_OF_PRODUCTS];
    load_components<T>(y + stride + k, z.components - 1, half, of);
    for (size_t r = 0; r < model.products.rows.size(); r++) {
      rows[r] = sum_terms<T>(model.products.rows[r], of);
      store_dual<T>(blocks + r * stride + k, half, rows[r]);
    }
    if (!inputs) continue;
    T* to = inputs + k;
    for (int l = 0; l < z.order; l++, to += stride) store_dual<T>(to, half, rows[l]);
    for (const Path& path : model.products.paths) {
      if (!path.invariant) continue;
      Dual<T> overlap{};
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += rows[path.row + m] * of[path.degree * path.degree - 1 + m];
      store_dual<T>(to, half, overlap);
      to += stride;
    }
  }
}

// x from y, the products and the gates: g_l y_l + Σ over paths to l of g_path (y ⊗ y)_path.
template <class T> void dual_apply_gates(const Model<T>& model, const T* y, const T* blocks, const T* gates, T* x) {
  const Sizes& z = model.sizes;
  const int half = BLOCK * z.width, stride = 2 * half;
  for (int k = 0; k < half; k += LANES<T>) {
    Dual<T> of[MOST_COMPONENTS];
    for (int l = 1; l <= z.order; l++) {
      const Dual<T> gate = load_dual<T>(gates + l * stride + k, half);
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++)
        of[m] = gate * load_dual<T>(y + (1 + m) * stride + k, half);
    }
    const T* at = gates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      const Dual<T> gate = load_dual<T>(at, half);
      for (int m = 0; m <= 2 * path.degree; m++)
        of[path.degree * path.degree - 1 + m] += gate * load_dual<T>(blocks + (path.row + m) * stride + k, half);
      at += stride;
    }
    for (int m = 0; m < z.components - 1; m++) store_dual<T>(x + m * stride + k, half, of[m]);
  }
}

// The derivatives by the gates but the first, from those by x.
template <class T> void dual_gates_back(const Model<T>& model, const T* y, const T* blocks, const T* dx, T* dgates) {
  const Sizes& z = model.sizes;
  const int half = BLOCK * z.width, stride = 2 * half;
  for (int k = 0; k < half; k += LANES<T>) {
    Dual<T> d[MOST_COMPONENTS];
    load_components<T>(dx + k, z.components - 1, half, d);
    for (int l = 1; l <= z.order; l++) {
      Dual<T> overlap{};
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++)
        overlap += d[m] * load_dual<T>(y + (1 + m) * stride + k, half);
      store_dual<T>(dgates + l * stride + k, half, overlap);
    }
    T* to = dgates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      Dual<T> overlap{};
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += d[path.degree * path.degree - 1 + m] * load_dual<T>(blocks + (path.row + m) * stride + k, half);
      store_dual<T>(to, half, overlap);
      to += stride;
    }
  }
}

// The derivative by y (from l = 1 on, into dy): by way of the inputs of the MLP that `dual_multiply_features` made and,
// where dx is not null, of x.
template <class T>
void dual_features_back(const Model<T>& model, const T* y, const T* blocks, const T* dinputs, const T* dx,
                        const T* gates, T* dy) {
  const Sizes& z = model.sizes;
  const int half = BLOCK * z.width, stride = 2 * half;
  for (int k = 0; k < half; k += LANES<T>) {
    Dual<T> of[MOST_COMPONENTS], d[MOST_COMPONENTS];
    load_components<T>(y + stride + k, z.components - 1, half, of);
    for (int l = 1; l <= z.order; l++)
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++)
        d[m] = dx ? load_dual<T>(dx + m * stride + k, half) * load_dual<T>(gates + l * stride + k, half) : Dual<T>{};
    const auto back = [&](int row, Dual<T> by_row) {
      for (const Term<T>& term : model.products.rows[row]) {
        const Dual<T> by_product = term.coefficient * by_row;
        d[term.first] += by_product * of[term.second];
        d[term.second] += by_product * of[term.first];
      }
    };
    const T* by_input = dinputs + k;
    for (int l = 0; l < z.order; l++, by_input += stride) back(l, load_dual<T>(by_input, half));
    const T* gate = gates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      const int start = path.degree * path.degree - 1;
      const Dual<T> by_overlap = path.invariant ? load_dual<T>(by_input, half) : Dual<T>{};
      const Dual<T> by_x = dx ? load_dual<T>(gate, half) : Dual<T>{};
      if (path.invariant) by_input += stride;
      gate += stride;
      if (!path.invariant && !dx) continue;
      for (int m = 0; m <= 2 * path.degree; m++) {
        Dual<T> by_row = by_overlap * of[start + m];
        if (dx) by_row += by_x * load_dual<T>(dx + (start + m) * stride + k, half);
        d[start + m] += by_overlap * load_dual<T>(blocks + (path.row + m) * stride + k, half);
        back(path.row + m, by_row);
      }
    }
    for (int m = 0; m < z.components - 1; m++) store_dual<T>(dy + (1 + m) * stride + k, half, d[m]);
  }
}

}  // namespace mdpot
