// All pairs of atoms closer than a cutoff, in any cell: the search behind a neighbor list.
#pragma once

#include <cstdint>
#include <vector>

#include "cell.h"

namespace mdpot {

class Pairs {
 public:
  // Raises std::invalid_argument where this is not the search to take; see mdpot_pairs_find, also for the arguments.
  Pairs(int64_t n_atoms, const double* positions, const double* cell, const uint8_t* periodic, double cutoff,
        int threads);

  int64_t count() const { return first_of_.back(); }
  // In the order of first, second and shift.
  void write(int64_t* first, int64_t* second, int32_t* shifts) const;

 private:
  // A range of atoms, and their pairs as keys, one atom's after the other's.
  struct Part {
    int64_t from, to;
    std::vector<uint32_t> keys;
  };

  void write_part(const Part& part, int64_t* first, int64_t* second, int32_t* shifts) const;

  std::vector<Part> parts_;
  std::vector<int64_t> first_of_;  // [n_atoms + 1] where an atom's pairs begin
  std::vector<int32_t> turns_;     // [n_atoms][3] cells between an atom and its image at home; empty: none anywhere
  std::vector<int32_t> images_;    // [images][3]
  int image_bits_ = 0;             // of a key, the lowest; above them is the second atom
};

}  // namespace mdpot
