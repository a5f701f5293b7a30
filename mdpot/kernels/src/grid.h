// Atoms sorted into bins, and the periodic images around them within the cutoff.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "array.h"
#include "cell.h"
#include "vector.h"

namespace mdpot {

struct Grid {
  Cell cell;
  int64_t n_atoms;
  double cutoff;             // Å; without periodic directions no longer than it takes to reach all
  std::vector<double> home;  // [n_atoms][3], Å, wrapped into the cell along periodic directions
  std::vector<int32_t> turns;   // [n_atoms][3] how many cells away home is; empty: none anywhere
  int64_t shape[3], reach[3];   // numbers of bins, and how many bins away an atom within the cutoff can be
  int64_t padded[3];            // numbers of bins with those of images: `shape` and twice `reach`
  std::vector<uint32_t> first;  // [padded bins + 1] where the atoms of a bin begin, images included, in these:
  Array<double> x, y, z;        // Å
  std::vector<uint32_t> keys;   // number of the atom, and in the lowest `image_bits` that of the image
  std::vector<int32_t> images;  // [images][3], in order
  int image_bits = 0;
  size_t most = 0;          // candidates of one atom
  double uncertainty = 0;   // Å², of a squared distance near the cutoff

  // Raises std::invalid_argument for positions that are not finite or too far out, and where bins are not the way.
  Grid(int64_t n_atoms, const double* positions, const Cell& cell, double cutoff);

  // The bin where those within reach of an atom begin, in the padded grid.
  int64_t corner_of(int64_t atom) const {
    const int32_t* at = bins_.data() + 3 * atom;
    return (at[0] * padded[1] + at[1]) * padded[2] + at[2];
  }
  // f(begin, end) for those within reach, row by row of the padded grid.
  template <class F> void each_row(int64_t corner, F&& f) const {
    for (int64_t a = 0; a <= 2 * reach[0]; a++)
      for (int64_t b = 0; b <= 2 * reach[1]; b++) {
        const uint32_t* row = first.data() + corner + (a * padded[1] + b) * padded[2];
        f(size_t(row[0]), size_t(row[2 * reach[2] + 1]));
      }
  }
  // Å², of an atom and a candidate: the same from the other one's side.
  double square(int64_t atom, uint32_t key) const {
    const int32_t* image = images.data() + 3 * (key & ((uint32_t(1) << image_bits) - 1));
    double sum = 0;
    for (int c = 0; c < 3; c++) {
      const double d = home[3 * (key >> image_bits) + c] - home[3 * atom + c] + cell.translation(image, c);
      sum += d * d;
    }
    return sum;
  }
  // What the atom itself is called among the candidates.
  uint32_t key_of(int64_t atom) const { return uint32_t(atom) << image_bits | home_image_; }

 private:
  void wrap(const double* positions);
  void choose_bins();
  void sort_into_bins();
  void list_images();
  void fill();
  void require_spread();

  double low_[3], extent_[3];     // of fractional coordinates; in aperiodic directions in Å
  double lengths_[3];             // Å, of the cell, or of the atoms in aperiodic directions
  std::vector<double> fractional_;  // [n_atoms][3]
  std::vector<int32_t> bins_;     // [n_atoms][3]
  std::vector<uint32_t> order_, begin_;  // atoms by bin, and where the atoms of a bin begin there
  int64_t most_[3];               // images away
  double expected_;               // candidates of an atom
  bool coarse_ = false;           // fewer bins than the cutoff asks for
  uint32_t home_image_ = 0;
};

}  // namespace mdpot
