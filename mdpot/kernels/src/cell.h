// The cell of a search: any lattice vectors, periodic in some directions or none.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>

namespace mdpot {

constexpr double FARTHEST = 1e9;   // Å: float64 resolves 1e-7 Å there
constexpr double FLATTEST = 1e-6;  // volume, in parts of that of a rectangular cell of the same lengths
constexpr double SHORTEST = 1e-6;  // Å, of a lattice vector

inline void cross(const double* a, const double* b, double* to) {
  for (int c = 0; c < 3; c++) to[c] = a[(c + 1) % 3] * b[(c + 2) % 3] - a[(c + 2) % 3] * b[(c + 1) % 3];
}

inline double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline double length(const double* a) { return std::sqrt(dot(a, a)); }

// An array of positions, of aperiodic directions too, is fractional · rows; fractional coordinates are
// positions · inverse.
struct Cell {
  double rows[3][3];  // Å; those of aperiodic directions are unit vectors normal to the periodic ones
  double inverse[3][3];
  double heights[3];  // Å, between lattice planes
  bool periodic[3];

  // Raises std::invalid_argument for periodic vectors that are not finite, too long, too short or almost in one plane.
  Cell(const double* cell, const uint8_t* pbc) {
    for (int a = 0; a < 3; a++) {
      periodic[a] = pbc[a];
      for (int c = 0; c < 3; c++) {
        rows[a][c] = periodic[a] ? cell[3 * a + c] : 0;
        if (!(std::abs(rows[a][c]) <= FARTHEST)) throw std::invalid_argument("cell");
      }
      if (periodic[a] && !(length(rows[a]) >= SHORTEST)) throw std::invalid_argument("cell");
    }
    complete();
    invert();
  }

  void fractional(const double* position, double* to) const {
    for (int a = 0; a < 3; a++)
      to[a] = position[0] * inverse[0][a] + position[1] * inverse[1][a] + position[2] * inverse[2][a];
  }

  // Å, along axis c, of an image of the cell.
  double translation(const int32_t* image, int c) const {
    return image[0] * rows[0][c] + image[1] * rows[1][c] + image[2] * rows[2][c];
  }

 private:
  void complete() {
    const int count = periodic[0] + periodic[1] + periodic[2];
    if (count == 0) {
      for (int a = 0; a < 3; a++) rows[a][a] = 1;
    } else if (count == 1) {
      const int axis = periodic[0] ? 0 : periodic[1] ? 1 : 2;
      const double* along = rows[axis];
      int least = 0;
      for (int c = 1; c < 3; c++)
        if (std::abs(along[c]) < std::abs(along[least])) least = c;
      double helper[3] = {};
      helper[least] = 1;
      normal_to(along, helper, rows[(axis + 1) % 3]);
      normal_to(along, rows[(axis + 1) % 3], rows[(axis + 2) % 3]);
    } else if (count == 2) {
      const int axis = !periodic[0] ? 0 : !periodic[1] ? 1 : 2;
      normal_to(rows[(axis + 1) % 3], rows[(axis + 2) % 3], rows[axis]);
    }
  }

  static void normal_to(const double* a, const double* b, double* to) {
    cross(a, b, to);
    const double norm = length(to);
    for (int c = 0; c < 3; c++) to[c] /= norm;
  }

  void invert() {
    double planes[3][3];
    for (int a = 0; a < 3; a++) cross(rows[(a + 1) % 3], rows[(a + 2) % 3], planes[a]);
    const double volume = dot(rows[0], planes[0]);
    // Not `<=`: NaN must be refused.
    if (!(std::abs(volume) > FLATTEST * length(rows[0]) * length(rows[1]) * length(rows[2])))
      throw std::invalid_argument("cell");
    for (int a = 0; a < 3; a++) {
      heights[a] = std::abs(volume) / length(planes[a]);
      for (int c = 0; c < 3; c++) inverse[c][a] = planes[a][c] / volume;
    }
  }
};

}  // namespace mdpot
