// The C interface: exceptions become codes and texts, and calls of one kernel take turns.
#include "interface.h"

#include <atomic>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

#include "pool.h"
#include "search.h"
#include "soap.h"

#ifndef MDPOT_INSTRUCTIONS
#define MDPOT_INSTRUCTIONS "baseline"
#endif

namespace {

std::string& error() {
  thread_local std::string text;
  return text;
}

int32_t fail(mdpot_status status, const char* text) {
  error() = text;
  return status;
}

const char* text_of(mdpot_status status) {
  switch (status) {
    case MDPOT_OK: return "";
    case MDPOT_BAD_ARGUMENT:
      return "candidates and species must name atoms and elements that are there, and candidates be in the order of i.";
    case MDPOT_NOT_FINITE: return "positions and cell must be finite; they hold NaN or infinity.";
    case MDPOT_OUT_OF_MEMORY: return "there is not enough memory for a structure of this size.";
    case MDPOT_CLASH: return "the potential gave forces that are not finite; look for atoms on top of each other.";
    default: return "the kernel failed.";
  }
}

}  // namespace

struct mdpot_kernel {
  std::unique_ptr<mdpot::Engine> engine;
  std::mutex* turn = new std::mutex;
  uint64_t generation = mdpot::generation();
  bool forked = false, failed = false;  // since what evaluations write to was made
  std::atomic<int32_t> threads{1};
};

struct mdpot_pairs {
  mdpot::Pairs found;
};

namespace {

// What is thrown as a status.
template <class F> mdpot_status status_of(F&& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return MDPOT_OUT_OF_MEMORY;
  } catch (const std::length_error&) {
    return MDPOT_OUT_OF_MEMORY;
  } catch (const std::invalid_argument&) {
    return MDPOT_BAD_ARGUMENT;
  } catch (...) {
    return MDPOT_FAILED;
  }
}

// Calls of one kernel one after the other.
template <class F> int32_t take_turn(mdpot_kernel* kernel, F&& f) {
  std::mutex* turn;
  {
    std::lock_guard<std::mutex> hold(mdpot::process_lock());
    if (kernel->generation != mdpot::generation()) {
      kernel->generation = mdpot::generation();
      kernel->turn = new std::mutex;  // the old one may be locked by a thread of the parent
      kernel->forked = true;
    }
    turn = kernel->turn;
  }
  std::lock_guard<std::mutex> hold(*turn);
  const mdpot_status status = status_of([&] {
    if (kernel->forked || kernel->failed) kernel->engine->forget(kernel->forked);
    kernel->forked = kernel->failed = false;
    kernel->engine->set_threads(kernel->threads);
    return f(*kernel->engine);
  });
  // After a failure sums may be left that the next evaluation takes for zero.
  kernel->failed = status != MDPOT_OK;
  return status == MDPOT_OK ? MDPOT_OK : fail(status, text_of(status));
}

template <class F> int32_t soap_status(F&& f) {
  const mdpot_status status = status_of(f);
  if (status == MDPOT_BAD_ARGUMENT) return fail(status, "weights of sizes that do not fit, or without what they need.");
  return status == MDPOT_OK ? MDPOT_OK : fail(status, text_of(status));
}

}  // namespace

extern "C" {

mdpot_kernel* mdpot_kernel_create(const mdpot_tide* tide, int32_t precision, int32_t threads) {
  try {
    if (precision != 4 && precision != 8) throw std::invalid_argument("precision: must be 4 or 8.");
    if (threads < 1) throw std::invalid_argument("threads: must be at least 1.");
    auto kernel = std::make_unique<mdpot_kernel>();
    kernel->engine = precision == 4 ? mdpot::make_float_engine(*tide) : mdpot::make_double_engine(*tide);
    kernel->threads = threads;
    return kernel.release();
  } catch (const std::invalid_argument& problem) {
    fail(MDPOT_BAD_ARGUMENT, problem.what());
  } catch (const std::bad_alloc&) {
    fail(MDPOT_OUT_OF_MEMORY, text_of(MDPOT_OUT_OF_MEMORY));
  } catch (...) {
    fail(MDPOT_FAILED, text_of(MDPOT_FAILED));
  }
  return nullptr;
}

void mdpot_kernel_destroy(mdpot_kernel* kernel) { delete kernel; }

int32_t mdpot_kernel_set_threads(mdpot_kernel* kernel, int32_t threads) {
  if (threads < 1) return fail(MDPOT_BAD_ARGUMENT, "threads: must be at least 1.");
  kernel->threads = threads;
  return MDPOT_OK;
}

int32_t mdpot_kernel_evaluate(mdpot_kernel* kernel, int64_t n_atoms, const int32_t* species, const double* positions,
                              const double* marks, int64_t n_systems, const int32_t* system, const double* cell,
                              int64_t n_candidates, const int64_t* first, const int64_t* second, const int32_t* shifts,
                              double* energies, double* forces, double* virial) {
  if (n_atoms < 0 || n_candidates < 0 || n_systems < 0) return fail(MDPOT_BAD_ARGUMENT, "counts must not be negative.");
  return take_turn(kernel, [&](mdpot::Engine& engine) {
    return engine.run({n_atoms, species, positions, marks, n_systems, system, cell, n_candidates, first, second, shifts},
                      energies, forces, virial);
  });
}

int32_t mdpot_kernel_train(mdpot_kernel* kernel, const mdpot_tide* tide) {
  return take_turn(kernel, [&](mdpot::Engine& engine) {
    engine.train(*tide);
    return MDPOT_OK;
  });
}

int32_t mdpot_kernel_update(mdpot_kernel* kernel, const double* weights) {
  return take_turn(kernel, [&](mdpot::Engine& engine) { return engine.set_weights(weights); });
}

int32_t mdpot_kernel_gradient(mdpot_kernel* kernel, int64_t n_atoms, const int32_t* species, const double* positions,
                              const double* marks, int64_t n_systems, const int32_t* system, const double* cell,
                              int64_t n_candidates, const int64_t* first, const int64_t* second, const int32_t* shifts,
                              const double* by_energies, const double* moved, const double* strain, double* gradient) {
  if (n_atoms < 0 || n_candidates < 0 || n_systems < 0) return fail(MDPOT_BAD_ARGUMENT, "counts must not be negative.");
  return take_turn(kernel, [&](mdpot::Engine& engine) {
    return engine.gradient(
        {n_atoms, species, positions, marks, n_systems, system, cell, n_candidates, first, second, shifts},
        {by_energies, moved, strain}, gradient);
  });
}

int32_t mdpot_soap_step(int64_t count, const mdpot_soap_weights* weights, const mdpot_soap_settings* settings,
                        int32_t threads) {
  return soap_status([&] { return mdpot::soap_step(count, weights, *settings, threads); });
}

int32_t mdpot_soap_refresh(int64_t count, const mdpot_soap_weights* weights, int32_t threads) {
  return soap_status([&] { return mdpot::soap_refresh(count, weights, threads); });
}

int32_t mdpot_pairs_find(int64_t n_atoms, const double* positions, const double* cell, const uint8_t* periodic,
                         double cutoff, int32_t threads, mdpot_pairs** pairs, int64_t* n_pairs) {
  return status_of([&] {
    *pairs = new mdpot_pairs{{n_atoms, positions, cell, periodic, cutoff, threads}};
    *n_pairs = (*pairs)->found.count();
    return MDPOT_OK;
  });
}

int32_t mdpot_pairs_write(const mdpot_pairs* pairs, int64_t* first, int64_t* second, int32_t* shifts) {
  return status_of([&] {
    pairs->found.write(first, second, shifts);
    return MDPOT_OK;
  });
}

void mdpot_pairs_destroy(mdpot_pairs* pairs) { delete pairs; }

const char* mdpot_kernels_error(void) { return error().c_str(); }

int32_t mdpot_kernels_abi(void) { return MDPOT_KERNELS_ABI; }

const char* mdpot_kernels_instructions(void) { return MDPOT_INSTRUCTIONS; }
}
