// What an evaluation calls for derivatives by the weights: compiled for itself, in gradient_float.cpp and _double.cpp.
#pragma once

#include <memory>

#include "gradient_workspace.h"
#include "structure.h"

namespace mdpot {

template <class T> class GradientEngine {
 public:
  virtual ~GradientEngine() = default;
  virtual mdpot_status run(const Model<T>& model, const Structure& structure, const Cotangents& cotangents,
                           int threads) = 0;
  // Of the last run.
  virtual const Gradient<T>& gradient() const = 0;
};

std::unique_ptr<GradientEngine<float>> make_gradient_engine(float, int order);
std::unique_ptr<GradientEngine<double>> make_gradient_engine(double, int order);

}  // namespace mdpot
