// Dual numbers: a value and its derivative along one direction of all positions. Arrays of them hold, for a block of
// atoms, the values' rows and then, `half` further, those of the derivatives: a linear map is one product of both.
#pragma once

#include "matrix.h"
#include "products.h"

namespace mdpot {

template <class T> struct Dual {
  Vector<T> value, slope;
  MDPOT_INLINE Dual& operator+=(Dual b) { return *this = *this + b; }
};

template <class T> MDPOT_INLINE Dual<T> operator+(Dual<T> a, Dual<T> b) { return {a.value + b.value, a.slope + b.slope}; }
template <class T> MDPOT_INLINE Dual<T> operator-(Dual<T> a, Dual<T> b) { return {a.value - b.value, a.slope - b.slope}; }
template <class T> MDPOT_INLINE Dual<T> operator*(Dual<T> a, Dual<T> b) {
  return {a.value * b.value, a.value * b.slope + a.slope * b.value};
}
template <class T> MDPOT_INLINE Dual<T> operator*(T a, Dual<T> b) { return {a * b.value, a * b.slope}; }
template <class T> MDPOT_INLINE Dual<T> operator+(Dual<T> a, T b) { return {a.value + b, a.slope}; }

template <class T> MDPOT_INLINE Dual<T> load_dual(const T* from, size_t half) {
  return {load<T>(from), load<T>(from + half)};
}
template <class T> MDPOT_INLINE void store_dual(T* to, size_t half, Dual<T> x) {
  store<T>(to, x.value);
  store<T>(to + half, x.slope);
}
template <class T> MDPOT_INLINE void store_as(T* to, int run, Dual<T> x) { store_dual<T>(to, run, x); }

// Rows of a block: those of the values, and those of the derivatives.
constexpr int DUAL_ROWS = 2 * BLOCK;

// The first of a block's rows as `bias`, one for each atom, and their derivatives zero. bias(atom) points to a row.
template <class T, class Bias> void start_rows(int width, T* rows, Bias&& bias) {
  for (int a = 0; a < BLOCK; a++) memcpy(rows + a * width, bias(a), sizeof(T) * width);
  memset(rows + BLOCK * width, 0, sizeof(T) * BLOCK * width);
}

// x σ(x) of duals [2][n].
template <class T> void dual_silu(const T* x, T* to, int n) {
  for (int k = 0; k < n; k += LANES<T>) {
    const Dual<T> a = load_dual<T>(x + k, n);
    const Vector<T> s = T(1) / (T(1) + exp(-a.value));
    store_dual<T>(to + k, n, {a.value * s, a.slope * s * (T(1) + a.value * (T(1) - s))});
  }
}

// d multiplied by the derivative of x σ(x).
template <class T> void dual_silu_back(const T* x, T* d, int n) {
  for (int k = 0; k < n; k += LANES<T>) {
    const Dual<T> a = load_dual<T>(x + k, n);
    const Vector<T> s = T(1) / (T(1) + exp(-a.value)), rest = T(1) - s;
    const Vector<T> curvature = s * rest * (T(2) + a.value * (rest - s));
    store_dual<T>(d + k, n, Dual<T>{s * (T(1) + a.value * rest), curvature * a.slope} * load_dual<T>(d + k, n));
  }
}

template <class T> void add_to(int n, const T* from, T factor, T* to) {
  for (int k = 0; k < n; k += LANES<T>) store<T>(to + k, load<T>(to + k) + factor * load<T>(from + k));
}

// Derivatives of the loss by the weights of y = a W, [depth][columns], are the derivative's part of aᵀ dy: the sums
// over a block of a' dy + a dy' are added. Rows of a are a_row apart, those of dy d_row.
template <class T> void add_products(int depth, int columns, const T* a, int a_row, const T* dy, int d_row, T* to) {
  const int half = BLOCK * a_row;
  multiply<T>(depth, columns, BLOCK, {a + half, 1, a_row, 2, -half}, dy, d_row, to, columns, true);
}

// The same for a bias: the sum of dy'.
template <class T> void add_rows(int columns, const T* dy, T* to) {
  for (int a = BLOCK; a < DUAL_ROWS; a++) add_to(columns, dy + a * columns, T(1), to);
}

}  // namespace mdpot
