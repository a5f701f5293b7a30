#include "evaluation.h"

namespace mdpot {

std::unique_ptr<Engine> make_float_engine(const mdpot_tide& tide) { return make_engine<float>(tide); }

}  // namespace mdpot
