#include "gradient.h"

namespace mdpot {

std::unique_ptr<GradientEngine<float>> make_gradient_engine(float, int order) { return make_gradient_pass<float>(order); }

}  // namespace mdpot
