// Features of a block of atoms multiplied with each other, and normalized; forward and back. Arrays of features are
// [component or row][BLOCK][width], so that one product is a run over BLOCK width numbers; of duals [..][2][BLOCK][width].
#pragma once

#include "angular_tables.h"
#include "workspace.h"

namespace mdpot {

// f(ORDER), as a constant.
template <class F> void with_order(int order, F&& f) {
  if (order == 1) return f(std::integral_constant<int, 1>());
  if (order == 2) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 3>());
}

// The components from l = 1 on.
template <int ORDER> constexpr int COMPONENTS = (ORDER + 1) * (ORDER + 1) - 1;

// Numbers V are vectors, or duals (see dual.h), of which the derivatives lie a run behind the values.
template <class T, class V> constexpr int PARTS = sizeof(V) / sizeof(Vector<T>);

template <class T, class V> MDPOT_INLINE V load_as(const T* from, int run) {
  if constexpr (PARTS<T, V> == 1)
    return load<T>(from);
  else
    return {load<T>(from), load<T>(from + run)};
}

template <class T> MDPOT_INLINE void store_as(T* to, int, Vector<T> x) { store<T>(to, x); }

template <class T, int N, class V> MDPOT_INLINE void load_components(const T* y, int run, V* to) {
  for (int m = 0; m < N; m++) to[m] = load_as<T, V>(y + m * run * PARTS<T, V>, run);
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

// Whether a row of the products enters the MLP, or only the gates' products.
template <int ORDER> constexpr bool reaches_inputs(int row) {
  bool found = row < ORDER;
  for (const ProductPath& path : Angular<ORDER>::paths)
    found |= path.invariant && row >= path.row && row <= path.row + 2 * path.degree;
  return found;
}

// All rows of the products into blocks, and the inputs that follow from them: the invariants y·y, then (y ⊗ y)·y.
template <class T, int ORDER, class V = Vector<T>> void multiply_features(int run, const T* y, T* blocks, T* inputs) {
  const int stride = run * PARTS<T, V>;
  constexpr int N = COMPONENTS<ORDER>, ROWS = Angular<ORDER>::product_row_count;
  constexpr auto terms = Angular<ORDER>::products;
  constexpr auto paths = Angular<ORDER>::paths;
  for (int k = 0; k < run; k += LANES<T>) {
    V of[N], rows[ROWS];
    load_components<T, N>(y + stride + k, run, of);
    for (int r = 0; r < ROWS; r++) rows[r] = V{};
    unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
      constexpr AngularTerm term = terms[t];
      rows[term.row] += T(term.coefficient) * (of[term.first] * of[term.second]);
    });
    for (int r = 0; r < ROWS; r++) store_as<T>(blocks + r * stride + k, run, rows[r]);
    if (!inputs) continue;
    T* to = inputs + k;
    for (int l = 0; l < ORDER; l++, to += stride) store_as<T>(to, run, rows[l]);
    unrolled<paths.size()>([&](auto p) MDPOT_INLINE_LAMBDA {
      constexpr ProductPath path = paths[p];
      if (!path.invariant) return;
      V overlap = V{};
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += rows[path.row + m] * of[path.degree * path.degree - 1 + m];
      store_as<T>(to, run, overlap);
      to += stride;
    });
  }
}

template <class T> void multiply_features(const Model<T>& model, const T* y, T* blocks, T* inputs) {
  with_order(model.sizes.order, [&](auto order) {
    multiply_features<T, order>(BLOCK * model.sizes.width, y, blocks, inputs);
  });
}

// x from y, the products and the gates: g_l y_l + Σ over paths to l of g_path (y ⊗ y)_path.
template <class T, int ORDER, class V = Vector<T>> void apply_gates(int run, const T* y, const T* blocks, const T* gates, T* x) {
  const int stride = run * PARTS<T, V>;
  constexpr auto paths = Angular<ORDER>::paths;
  for (int k = 0; k < run; k += LANES<T>) {
    V of[COMPONENTS<ORDER>];
    for (int l = 1; l <= ORDER; l++) {
      const V gate = load_as<T, V>(gates + l * stride + k, run);
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++) of[m] = gate * load_as<T, V>(y + (1 + m) * stride + k, run);
    }
    unrolled<paths.size()>([&](auto p) MDPOT_INLINE_LAMBDA {
      constexpr ProductPath path = paths[p];
      const V gate = load_as<T, V>(gates + (1 + ORDER + p) * stride + k, run);
      for (int m = 0; m <= 2 * path.degree; m++)
        of[path.degree * path.degree - 1 + m] += gate * load_as<T, V>(blocks + (path.row + m) * stride + k, run);
    });
    for (int m = 0; m < COMPONENTS<ORDER>; m++) store_as<T>(x + m * stride + k, run, of[m]);
  }
}

template <class T> void apply_gates(const Model<T>& model, const T* y, const T* blocks, const T* gates, T* x) {
  with_order(model.sizes.order, [&](auto order) {
    apply_gates<T, order>(BLOCK * model.sizes.width, y, blocks, gates, x);
  });
}

// The derivatives by the gates but the first, from those by x.
template <class T, int ORDER, class V = Vector<T>> void gates_back(int run, const T* y, const T* blocks, const T* dx, T* dgates) {
  const int stride = run * PARTS<T, V>;
  constexpr auto paths = Angular<ORDER>::paths;
  for (int k = 0; k < run; k += LANES<T>) {
    V d[COMPONENTS<ORDER>];
    load_components<T, COMPONENTS<ORDER>>(dx + k, run, d);
    for (int l = 1; l <= ORDER; l++) {
      V overlap = V{};
      for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++) overlap += d[m] * load_as<T, V>(y + (1 + m) * stride + k, run);
      store_as<T>(dgates + l * stride + k, run, overlap);
    }
    unrolled<paths.size()>([&](auto p) MDPOT_INLINE_LAMBDA {
      constexpr ProductPath path = paths[p];
      V overlap = V{};
      for (int m = 0; m <= 2 * path.degree; m++)
        overlap += d[path.degree * path.degree - 1 + m] * load_as<T, V>(blocks + (path.row + m) * stride + k, run);
      store_as<T>(dgates + (1 + ORDER + p) * stride + k, run, overlap);
    });
  }
}

template <class T> void gates_back(const Model<T>& model, const T* y, const T* blocks, const T* dx, T* dgates) {
  with_order(model.sizes.order, [&](auto order) {
    gates_back<T, order>(BLOCK * model.sizes.width, y, blocks, dx, dgates);
  });
}

// The derivative by y (from l = 1 on, into dy): by way of the inputs of the MLP that `multiply_features` made and,
// where there is one, of x.
template <class T, int ORDER, bool HAS_X, class V = Vector<T>>
void features_back(int run, const T* y, const T* blocks, const T* dinputs, const T* dx, const T* gates, T* dy) {
  const int stride = run * PARTS<T, V>;
  constexpr int N = COMPONENTS<ORDER>, ROWS = Angular<ORDER>::product_row_count;
  constexpr auto terms = Angular<ORDER>::products;
  constexpr auto paths = Angular<ORDER>::paths;
  for (int k = 0; k < run; k += LANES<T>) {
    V of[N], d[N], by_x[N], by_row[ROWS];
    load_components<T, N>(y + stride + k, run, of);
    for (int m = 0; m < N; m++) d[m] = by_x[m] = V{};
    if constexpr (HAS_X) {
      load_components<T, N>(dx + k, run, by_x);
      for (int l = 1; l <= ORDER; l++)
        for (int m = l * l - 1; m < (l + 1) * (l + 1) - 1; m++) d[m] = by_x[m] * load_as<T, V>(gates + l * stride + k, run);
    }
    const T* by_input = dinputs + k;
    for (int l = 0; l < ORDER; l++, by_input += stride) by_row[l] = load_as<T, V>(by_input, run);
    unrolled<paths.size()>([&](auto p) MDPOT_INLINE_LAMBDA {
      constexpr ProductPath path = paths[p];
      constexpr int start = path.degree * path.degree - 1;
      for (int m = 0; m <= 2 * path.degree; m++) by_row[path.row + m] = V{};
      if constexpr (path.invariant) {
        const V by_overlap = load_as<T, V>(by_input, run);
        by_input += stride;
        for (int m = 0; m <= 2 * path.degree; m++) {
          by_row[path.row + m] = by_overlap * of[start + m];
          d[start + m] += by_overlap * load_as<T, V>(blocks + (path.row + m) * stride + k, run);
        }
      }
      if constexpr (HAS_X) {
        const V gate = load_as<T, V>(gates + (1 + ORDER + p) * stride + k, run);
        for (int m = 0; m <= 2 * path.degree; m++) by_row[path.row + m] += gate * by_x[start + m];
      }
    });
    unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
      constexpr AngularTerm term = terms[t];
      if constexpr (HAS_X || reaches_inputs<ORDER>(term.row)) {
        const V by_product = T(term.coefficient) * by_row[term.row];
        d[term.first] += by_product * of[term.second];
        d[term.second] += by_product * of[term.first];
      }
    });
    for (int m = 0; m < N; m++) store_as<T>(dy + (1 + m) * stride + k, run, d[m]);
  }
}

template <class T>
void features_back(const Model<T>& model, const T* y, const T* blocks, const T* dinputs, const T* dx, const T* gates,
                   T* dy) {
  const int run = BLOCK * model.sizes.width;
  with_order(model.sizes.order, [&](auto order) {
    if (dx)
      features_back<T, order, true>(run, y, blocks, dinputs, dx, gates, dy);
    else
      features_back<T, order, false>(run, y, blocks, dinputs, dx, gates, dy);
  });
}

}  // namespace mdpot
