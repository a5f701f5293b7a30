// Products of small matrices: all of the network's linear maps, and the sums over neighbors.
#pragma once

#include "vector.h"

namespace mdpot {

// The left matrix: element (r, k) of its part p at data[r row + k column + p part].
template <class T> struct Left {
  const T* data;
  int row, column = 1, parts = 1, part = 0;
};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATORS = 24;  // of 32 registers
#else
constexpr int ACCUMULATORS = 12;  // of 16
#endif
constexpr int MOST_ROWS = 12;

template <class T, int ROWS, int COLUMNS>
MDPOT_INLINE void tile(Left<T> a, int depth, const T* b, int b_row, T* c, int c_row, bool add) {
  constexpr int L = LANES<T>;
  Vector<T> sum[ROWS][COLUMNS];
  for (int r = 0; r < ROWS; r++)
    for (int n = 0; n < COLUMNS; n++) sum[r][n] = add ? load<T>(c + r * c_row + n * L) : all<T>(0);
  for (int p = 0; p < a.parts; p++) {
    // A pointer to every third row: the two rows after it are within reach of the processor's addressing.
    const T* rows[(ROWS + 2) / 3];
    for (int r = 0; r < ROWS; r += 3) rows[r / 3] = a.data + p * a.part + r * a.row;
    for (int k = 0; k < depth; k++, b += b_row) {
      Vector<T> right[COLUMNS];
      for (int n = 0; n < COLUMNS; n++) right[n] = load<T>(b + n * L);
      for (int r = 0; r < ROWS; r++) {
        const T left = rows[r / 3][r % 3 * a.row];
        for (int n = 0; n < COLUMNS; n++) sum[r][n] += left * right[n];
      }
      for (int r = 0; r < ROWS; r += 3) rows[r / 3] += a.column;
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int n = 0; n < COLUMNS; n++) store<T>(c + r * c_row + n * L, sum[r][n]);
}

template <class T, int COLUMNS>
__attribute__((noinline)) void tiles(int rows, Left<T> a, int depth, const T* b, int b_row, T* c, int c_row, bool add) {
  constexpr int most = ACCUMULATORS / COLUMNS < MOST_ROWS ? ACCUMULATORS / COLUMNS : MOST_ROWS;
  for (int left = (rows + most - 1) / most; left > 0; left--) {
    const int n = (rows + left - 1) / left;
    switch (n) {
#define MDPOT_TILE(N) \
  case N:             \
    if constexpr (N <= most) tile<T, N, COLUMNS>(a, depth, b, b_row, c, c_row, add); \
    break;
      MDPOT_TILE(1) MDPOT_TILE(2) MDPOT_TILE(3) MDPOT_TILE(4) MDPOT_TILE(5) MDPOT_TILE(6)
      MDPOT_TILE(7) MDPOT_TILE(8) MDPOT_TILE(9) MDPOT_TILE(10) MDPOT_TILE(11) MDPOT_TILE(12)
#undef MDPOT_TILE
    }
    rows -= n;
    a.data += n * a.row;
    c += n * c_row;
  }
}

// c (+)= Σ over parts and k < depth of a(r, k, part) b[part depth + k], for `columns` columns, a multiple of LANES.
template <class T>
void multiply(int rows, int columns, int depth, Left<T> a, const T* b, int b_row, T* c, int c_row, bool add = false) {
  for (int left = columns / LANES<T>; left > 0;) {
    // Four registers wide, or three where that leaves no single one.
    const int n = left == 4 || left >= 7 ? (left == 9 ? 3 : 4) : left > 2 ? 3 : left;
    if (n == 1) tiles<T, 1>(rows, a, depth, b, b_row, c, c_row, add);
    if (n == 2) tiles<T, 2>(rows, a, depth, b, b_row, c, c_row, add);
    if (n == 3) tiles<T, 3>(rows, a, depth, b, b_row, c, c_row, add);
    if (n == 4) tiles<T, 4>(rows, a, depth, b, b_row, c, c_row, add);
    left -= n;
    b += n * LANES<T>;
    c += n * LANES<T>;
  }
}

// c[r][s] = Σ over k < n of a[r n + k] b[s n + k], n a multiple of LANES; rows of c are padded to LANES.
template <class T> void inner_products(int rows, int columns, int n, const T* a, const T* b, T* c, int c_row) {
  constexpr int L = LANES<T>, G = L < 4 ? L : 4;
  for (int r = 0; r < rows; r++)
    for (int s = 0; s < columns; s += L) {
      Vector<T> found[L];
      for (int q = 0; q < L; q += G) {
        // Beyond the last column the last one is taken again: its sums land in the padding.
        const T* right[G];
        for (int g = 0; g < G; g++) right[g] = b + (s + q + g < columns ? s + q + g : columns - 1) * n;
        Vector<T> sum[G];
        for (int g = 0; g < G; g++) sum[g] = all<T>(0);
        if (s + q < columns)
          for (int k = 0; k < n; k += L) {
            const Vector<T> left = load<T>(a + r * n + k);
            for (int g = 0; g < G; g++) sum[g] += left * load<T>(right[g] + k);
          }
        for (int g = 0; g < G; g++) found[q + g] = sum[g];
      }
      store<T>(c + r * c_row + s, sums<T>(found));
    }
}

}  // namespace mdpot
