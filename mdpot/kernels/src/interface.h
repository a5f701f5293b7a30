// What the C interface calls.
#pragma once

#include <memory>

#include "mdpot_kernels.h"
#include "structure.h"

namespace mdpot {

class Engine {
 public:
  virtual ~Engine() = default;
  virtual void set_threads(int threads) = 0;
  virtual mdpot_status run(const Structure& structure, double* energies, double* forces, double* virial) = 0;
  // Readies it for the two below; `tide` is what it was made of. Raises std::invalid_argument.
  virtual void train(const mdpot_tide& tide) = 0;
  virtual mdpot_status set_weights(const double* weights) = 0;
  virtual mdpot_status gradient(const Structure& structure, const Cotangents& cotangents, double* gradient) = 0;
  // What evaluations have left is not used again; after a fork it is not even freed.
  virtual void forget(bool forked) = 0;
};

// Raises std::invalid_argument where sizes do not fit.
std::unique_ptr<Engine> make_float_engine(const mdpot_tide& tide);
std::unique_ptr<Engine> make_double_engine(const mdpot_tide& tide);

}  // namespace mdpot
