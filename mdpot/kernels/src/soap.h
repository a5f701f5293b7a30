// SOAP's step (mdpot.training.soap has the equations and the reference in torch): the products of small matrices that
// torch makes one at a time, on all threads.
#pragma once

#include "mdpot_kernels.h"

namespace mdpot {

// The same to the bit for any number of threads: each of its parts is one thread's alone.
mdpot_status soap_step(int64_t count, const mdpot_soap_weights* weights, const mdpot_soap_settings& settings,
                       int threads);
mdpot_status soap_refresh(int64_t count, const mdpot_soap_weights* weights, int threads);

}  // namespace mdpot
