// Matrices of any size in the memory of one thread, for the products of matrix.h, which take whole vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "array.h"
#include "matrix.h"

namespace mdpot {

// A matrix whose rows begin `row` numbers apart, filled up with zeros to whole vectors.
struct Matrix {
  float* data;
  int rows, columns, row;

  float* of(int r) const { return data + int64_t(r) * row; }
};

// One thread's memory for the matrices of a task.
class Room {
 public:
  // Forgets all that was taken; there is room for `size` numbers, in matrices filled up in both directions.
  void start(size_t size) {
    space_.grow(size);
    used_ = 0;
  }

  Matrix take(int rows, int columns) {
    const Matrix found{space_.data() + used_, rows, columns, padded<float>(columns)};
    used_ += int64_t(padded<float>(rows)) * found.row;
    return found;
  }

  // Numbers [rows][columns] as a matrix: where they lie, or copied where rows have to be filled up.
  Matrix view(const float* from, int rows, int columns) { return view(from, rows, columns, columns); }
  // Rows that begin `apart` numbers apart.
  Matrix view(const float* from, int rows, int columns, int apart) {
    if (columns % LANES<float> == 0) return {const_cast<float*>(from), rows, columns, apart};
    const Matrix to = take(rows, columns);
    for (int r = 0; r < rows; r++) {
      memcpy(to.of(r), from + int64_t(r) * apart, sizeof(float) * columns);
      std::fill(to.of(r) + columns, to.of(r) + to.row, 0.f);
    }
    return to;
  }

  Matrix transposed(const Matrix& from) {
    const Matrix to = take(from.columns, from.rows);
    constexpr int L = LANES<float>;
    for (int c = 0; c < from.columns; c += L)
      for (int r = 0; r < from.rows; r += L) {
        Vector<float> block[L];
        for (int q = 0; q < L; q++) block[q] = r + q < from.rows ? load<float>(from.of(r + q) + c) : all<float>(0);
        transpose<float>(block);
        for (int q = 0; q < L; q++) store<float>(to.of(c + q) + r, block[q]);  // `take` rounds up the rows as well
      }
    return to;
  }

  // a b, and aᵀ b.
  Matrix product(const Matrix& a, const Matrix& b) { return product({a.data, a.row}, a.rows, a.columns, b); }
  Matrix product_of_transposed(const Matrix& a, const Matrix& b) {
    return product({a.data, 1, a.row}, a.columns, a.rows, b);
  }

 private:
  Matrix product(Left<float> a, int rows, int depth, const Matrix& b) {
    const Matrix to = take(rows, b.columns);
    multiply<float>(rows, to.row, depth, a, b.data, b.row, to.data, to.row);
    return to;
  }

  Array<float> space_;
  int64_t used_ = 0;
};

// Rows [from, to) of `a` reflected at the plane across the unit vector v, whose numbers before `first` are zero.
inline void reflect(const float* v, int first, const Matrix& a, int from, int to) {
  constexpr int L = LANES<float>, ROWS = 4;  // rows at a time, as each waits for its overlap
  const int begin = first / L * L;
  for (int j = from; j < to; j += ROWS) {
    float* rows[ROWS];
    Vector<float> overlap[ROWS];
    const int n = std::min(ROWS, to - j);
    for (int q = 0; q < ROWS; q++) {
      rows[q] = a.of(j + std::min(q, n - 1));
      overlap[q] = all<float>(0);
    }
    for (int k = begin; k < a.row; k += L)
      for (int q = 0; q < ROWS; q++) overlap[q] += load<float>(v + k) * load<float>(rows[q] + k);
    float twice[ROWS];
    for (int q = 0; q < ROWS; q++) twice[q] = q < n ? 2 * sum<float>(overlap[q]) : 0;
    for (int k = begin; k < a.row; k += L)
      for (int q = 0; q < ROWS; q++) store<float>(rows[q] + k, load<float>(rows[q] + k) - twice[q] * load<float>(v + k));
  }
}

// The rows of a square matrix become orthonormal, one after the other: the Q of a QR factorization of its transpose, by
// Householder's reflections. Takes one matrix from the room.
inline void orthonormalize(const Matrix& a, Room& room) {
  const int n = a.rows;
  const Matrix reflectors = room.take(n, n);
  for (int i = 0; i < n; i++) {
    float *v = reflectors.of(i), *x = a.of(i);
    std::fill(v, v + i, 0.f);
    std::copy(x + i, x + a.row, v + i);
    double square = 0;
    for (int k = i; k < n; k++) square += double(v[k]) * v[k];
    const double head = v[i] + std::copysign(std::sqrt(square), double(v[i]));
    const double norm = std::sqrt(square - double(v[i]) * v[i] + head * head);
    const double scale = norm > 0 ? 1 / norm : 0;  // a row of zeros is left alone
    for (int k = i; k < a.row; k++) v[k] = float(scale * (k == i ? head : double(v[k])));
    reflect(v, i, a, i + 1, n);
  }
  for (int i = n - 1; i >= 0; i--) {
    std::fill(a.of(i), a.of(i) + a.row, 0.f);
    a.of(i)[i] = 1;
    reflect(reflectors.of(i), i, a, i, n);
  }
}

}  // namespace mdpot
