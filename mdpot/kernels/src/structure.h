// What is evaluated, one structure or several side by side; see mdpot_kernel_evaluate.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mdpot {

struct Structure {
  int64_t n_atoms;
  const int32_t* species;
  const double *positions, *marks;
  int64_t n_systems;
  const int32_t* system;
  const double* cell;
  int64_t n_candidates;
  const int64_t *first, *second;
  const int32_t* shifts;

  // Which of the structures an atom is of.
  size_t of(size_t atom) const { return system ? system[atom] : 0; }
};

// What is differentiated by the weights; see mdpot_kernel_gradient.
struct Cotangents {
  const double *energies, *moved, *strain;
};

}  // namespace mdpot
