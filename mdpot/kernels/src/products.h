// Features of a block of atoms multiplied with each other, and normalized; forward and back. Arrays of features are
// [component or row][BLOCK][width], so that one product is a run over BLOCK width numbers.
#pragma once

#include "workspace.h"

namespace mdpot {

constexpr int MOST_COMPONENTS = 16, MOST_ROWS_OF_PRODUCTS = 64;

// The sum of the terms of a row.
template <class T> MDPOT_INLINE Vector<T> sum_terms(const std::vector<Term<T>>& terms, const Vector<T>* y) {
  Vector<T> sum = all<T>(0);
  for (const Term<T>& term : terms) sum += term.coefficient * y[term.first] * y[term.second];
  return sum;
}

template <class T> MDPOT_INLINE void load_components(const T* y, int count, int stride, Vector<T>* to) {
  for (int m = 0; m < count; m++) to[m] = load<T>(y + m * stride);
}

// Each atom's y from l = 1 on divided by √(1 + ⟨y²⟩); the factors into inverse[BLOCK].
template <class T> void normalize(const Sizes& z, T* y, T* inverse) {
  const int stride = BLOCK * z.width, components = z.components - 1;
  for (int a = 0; a < BLOCK; a++) {
    T* of = y + stride + a * z.width;
    Vector<T> squares = all<T>(0);
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>) {
        const Vector<T> v = load<T>(of + m * stride + k);
        squares += v * v;
      }
    inverse[a] = T(1) / std::sqrt(T(1) + sum<T>(squares) / T(components * z.features));
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>)
        store<T>(of + m * stride + k, inverse[a] * load<T>(of + m * stride + k));
  }
}

// dy from the derivative by the normalized y to that by y before.
template <class T> void normalize_back(const Sizes& z, const T* y, const T* inverse, T* dy) {
  const int stride = BLOCK * z.width, components = z.components - 1;
  for (int a = 0; a < BLOCK; a++) {
    const T* of = y + stride + a * z.width;
    T* d = dy + stride + a * z.width;
    Vector<T> overlap = all<T>(0);
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>)
        overlap += load<T>(of + m * stride + k) * load<T>(d + m * stride + k);
    const T along = -sum<T>(overlap) * inverse[a] / T(components * z.features);
    for (int m = 0; m < components; m++)
      for (int k = 0; k < z.width; k += LANES<T>)
        store<T>(d + m * stride + k, inverse[a] * load<T>(d + m * stride + k) + along * load<T>(of + m * stride + k));
  }
}

// All rows of the products into blocks, and the inputs that follow from them: the invariants y·y, then (y ⊗ y)·y.
template <class T> void multiply_features(const Model<T>& model, const T* y, T* blocks, T* inputs) {
  const Sizes& z = model.sizes;
  const int stride = BLOCK * z.width;
  for (int k = 0; k < stride; k += LANES<T>) {
    Vector<T> of[MOST_COMPONENTS], rows[MOST_ROWS_OF_PRODUCTS];
    load_components<T>(y + stride + k, z.components - 1, stride, of);
    for (size_t r = 0; r < model.products.rows.size(); r++) {
      rows[r] = sum_terms<T>(model.products.rows[r], of);
      store<T>(blocks + r * stride + k, rows[r]);
    }
    if (!inputs) continue;
    T* to = inputs + k;
    for (int l = 0; l < z.order; l++, to += stride) store<T>(to, rows[l]);
    for (const Path& path : model.products.paths) {
      if (!path.invariant) continue;
      Vector<T> overlap = all<T>(0);
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += rows[path.row + m] * of[path.degree * path.degree - 1 + m];
      store<T>(to, overlap);
      to += stride;
    }
  }
}

// x from y, the products and the gates: g_l y_l + Σ over paths to l of g_path (y ⊗ y)_path.
template <class T> void apply_gates(const Model<T>& model, const T* y, const T* blocks, const T* gates, T* x) {
  const Sizes& z = model.sizes;
  const int stride = BLOCK * z.width;
  for (int k = 0; k < stride; k += LANES<T>) {
    Vector<T> of[MOST_COMPONENTS];
    for (int l = 1; l <= z.order; l++) {
      const Vector<T> gate = load<T>(gates + l * stride + k);
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++) of[m] = gate * load<T>(y + (1 + m) * stride + k);
    }
    const T* gate = gates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      for (int m = 0; m <= 2 * path.degree; m++)
        of[path.degree * path.degree - 1 + m] += load<T>(gate) * load<T>(blocks + (path.row + m) * stride + k);
      gate += stride;
    }
    for (int m = 0; m < z.components - 1; m++) store<T>(x + m * stride + k, of[m]);
  }
}

// The derivatives by the gates but the first, from those by x.
template <class T> void gates_back(const Model<T>& model, const T* y, const T* blocks, const T* dx, T* dgates) {
  const Sizes& z = model.sizes;
  const int stride = BLOCK * z.width;
  for (int k = 0; k < stride; k += LANES<T>) {
    Vector<T> d[MOST_COMPONENTS];
    load_components<T>(dx + k, z.components - 1, stride, d);
    for (int l = 1; l <= z.order; l++) {
      Vector<T> overlap = all<T>(0);
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++) overlap += d[m] * load<T>(y + (1 + m) * stride + k);
      store<T>(dgates + l * stride + k, overlap);
    }
    T* to = dgates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      Vector<T> overlap = all<T>(0);
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += d[path.degree * path.degree - 1 + m] * load<T>(blocks + (path.row + m) * stride + k);
      store<T>(to, overlap);
      to += stride;
    }
  }
}

// The derivative by y (from l = 1 on, into dy): by way of the inputs of the MLP that `multiply_features` made and,
// where dx is not null, of x.
template <class T>
void features_back(const Model<T>& model, const T* y, const T* blocks, const T* dinputs, const T* dx, const T* gates,
                   T* dy) {
  const Sizes& z = model.sizes;
  const int stride = BLOCK * z.width;
  for (int k = 0; k < stride; k += LANES<T>) {
    Vector<T> of[MOST_COMPONENTS], d[MOST_COMPONENTS];
    load_components<T>(y + stride + k, z.components - 1, stride, of);
    for (int l = 1; l <= z.order; l++)
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++)
        d[m] = dx ? load<T>(dx + m * stride + k) * load<T>(gates + l * stride + k) : all<T>(0);
    const auto back = [&](int row, Vector<T> by_row) {
      for (const Term<T>& term : model.products.rows[row]) {
        const Vector<T> by_product = term.coefficient * by_row;
        d[term.first] += by_product * of[term.second];
        d[term.second] += by_product * of[term.first];
      }
    };
    const T* by_input = dinputs + k;
    for (int l = 0; l < z.order; l++, by_input += stride) back(l, load<T>(by_input));
    const T* gate = gates + (1 + z.order) * stride + k;
    for (const Path& path : model.products.paths) {
      const int start = path.degree * path.degree - 1;
      const Vector<T> by_overlap = path.invariant ? load<T>(by_input) : all<T>(0);
      const Vector<T> by_x = dx ? load<T>(gate) : all<T>(0);
      if (path.invariant) by_input += stride;
      gate += stride;
      if (!path.invariant && !dx) continue;
      for (int m = 0; m <= 2 * path.degree; m++) {
        Vector<T> by_row = by_overlap * of[start + m];
        if (dx) by_row += by_x * load<T>(dx + (start + m) * stride + k);
        d[start + m] += by_overlap * load<T>(blocks + (path.row + m) * stride + k);
        back(path.row + m, by_row);
      }
    }
    for (int m = 0; m < z.components - 1; m++) store<T>(dy + (1 + m) * stride + k, d[m]);
  }
}

}  // namespace mdpot
