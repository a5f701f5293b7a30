#include "gradient.h"

namespace mdpot {

std::unique_ptr<GradientEngine<double>> make_gradient_engine(double, int order) { return make_gradient_pass<double>(order); }

}  // namespace mdpot
