// What is evaluated; see mdpot_kernel_evaluate.
#pragma once

#include <cstdint>

namespace mdpot {

struct Structure {
  int64_t n_atoms;
  const int32_t* species;
  const double *positions, *marks, *cell;
  int64_t n_candidates;
  const int64_t *first, *second;
  const int32_t* shifts;
};

}  // namespace mdpot
