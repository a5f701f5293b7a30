#include "evaluation.h"

namespace mdpot {

std::unique_ptr<Engine> make_double_engine(const mdpot_tide& tide) { return make_engine<double>(tide); }

}  // namespace mdpot
