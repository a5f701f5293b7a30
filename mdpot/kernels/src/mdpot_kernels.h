/* The C interface of the fused CPU kernels: the energy, forces and virial of a Tide potential,
 * and derivatives by its weights.
 *
 * Plain C, with neither torch's nor Python's ABI in it: one library serves every version of both. Nothing throws
 * across it and nothing is printed. Every function may be called from any thread.
 */
#ifndef MDPOT_KERNELS_H
#define MDPOT_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define MDPOT_EXPORT __declspec(dllexport)
#else
#define MDPOT_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever anything below changes its meaning; a caller refuses a library of another one. */
#define MDPOT_KERNELS_ABI 5

enum mdpot_status {
  MDPOT_OK = 0,
  MDPOT_BAD_ARGUMENT = 1,   /* sizes or indices that do not fit */
  MDPOT_NOT_FINITE = 2,     /* positions or cell hold NaN or infinity */
  MDPOT_OUT_OF_MEMORY = 3,
  MDPOT_CLASH = 4,          /* forces that are not finite: atoms on top of each other */
  MDPOT_FAILED = 5
};

typedef struct mdpot_kernel mdpot_kernel;

/* A Tide potential: its sizes, its constant tables and its weights, all in float64 and copied by the call.
 *
 * `weights` holds, one after the other, row by row:
 *   embedding [n_elements][width], mark [width], radial [(order + 1) n_radial][n_basis];
 *   for each layer: send [channels][width], its bias [channels], for l = 1 … sent_order [width][channels] (not in the
 *     first layer), mix [paths][n_radial channels][width], first linear map [hidden][inputs width], its bias [hidden],
 *     second linear map [outputs width][hidden], its bias [outputs width];
 *   readout: [width][width], its bias [width], [width], its bias [1];
 *   wall [n_elements][n_elements] (Å; zero: none), pair [n_pair_terms][n_elements][n_elements] (eV),
 *   shift [n_elements] (eV).
 * `products` is `mdpot.models.angular.product_table` spread over all pairs of components, [product_rows][n][n] with
 * n = (order + 1)^2 - 1; `message_rows` is the number of rows of `message_table`, of which the kernels have their own.
 */
typedef struct {
  int32_t n_elements, order, sent_order, layers, width, channels, n_radial, n_basis, hidden, n_pair_terms;
  int32_t message_rows, product_rows;
  double cutoff;        /* Å */
  double norm;          /* factor of the radial functions */
  double scale;         /* eV, of the network's output */
  double wall_strength; /* eV */
  double pair_decay;    /* 1/Å */
  const double *products, *weights;
  int64_t n_weights;
} mdpot_tide;

/* A kernel, or NULL (see mdpot_kernels_error). `precision` is 4 for float32 and 8 for float64. */
MDPOT_EXPORT mdpot_kernel *mdpot_kernel_create(const mdpot_tide *tide, int32_t precision, int32_t threads);
MDPOT_EXPORT void mdpot_kernel_destroy(mdpot_kernel *kernel);

/* How many threads evaluations use from now on, at least 1. Results are the same to the bit for the same number. */
MDPOT_EXPORT int32_t mdpot_kernel_set_threads(mdpot_kernel *kernel, int32_t threads);

/* Structures side by side. Calls of the same kernel at the same time wait for each other.
 *
 *   species    [n_atoms], 0 … n_elements - 1
 *   positions  [n_atoms][3], Å
 *   marks      [n_atoms], see `Potential.forward`; NULL: zero
 *   system     [n_atoms], 0 … n_systems - 1, the structure that an atom is of; NULL: all of one
 *   cell       [n_systems][3][3], Å, rows are lattice vectors
 *   first, second  [n_candidates], shifts [n_candidates][3]: pairs of atoms, both directions, so that a vector is
 *              positions[second] - positions[first] + shifts cell; in the order of `first`. Those beyond the cutoff
 *              do no harm.
 *   energies   [n_atoms], eV, the reference included
 *   forces     [n_atoms][3], eV/Å
 *   virial     [n_systems][3][3], eV, the derivative of the energy by the strain, symmetric; NULL: not wanted
 *
 * Returns an mdpot_status; what the arrays hold after an error means nothing. */
MDPOT_EXPORT int32_t mdpot_kernel_evaluate(mdpot_kernel *kernel, int64_t n_atoms, const int32_t *species,
                                           const double *positions, const double *marks, int64_t n_systems,
                                           const int32_t *system, const double *cell, int64_t n_candidates,
                                           const int64_t *first, const int64_t *second, const int32_t *shifts,
                                           double *energies, double *forces, double *virial);

/* Readies a kernel for being trained: for the two calls below. `tide` is what it was made of. */
MDPOT_EXPORT int32_t mdpot_kernel_train(mdpot_kernel *kernel, const mdpot_tide *tide);

/* New weights, all `n_weights` of them, laid out as those of an mdpot_tide. Pairs and reference energies stay. */
MDPOT_EXPORT int32_t mdpot_kernel_update(mdpot_kernel *kernel, const double *weights);

/* The derivative by the weights of a loss that depends on energies, forces and stress; structures as above.
 *
 *   by_energies  [n_atoms], the loss's derivatives by the atoms' energies
 *   moved        [n_atoms][3], those by the forces with their sign turned; NULL: zero
 *   strain       [n_systems][3][3], symmetric, the loss's derivatives by the virial; NULL: zero
 *   gradient     [n_weights], laid out as the weights; by pairs and reference energies it is zero */
MDPOT_EXPORT int32_t mdpot_kernel_gradient(mdpot_kernel *kernel, int64_t n_atoms, const int32_t *species,
                                           const double *positions, const double *marks, int64_t n_systems,
                                           const int32_t *system, const double *cell, int64_t n_candidates,
                                           const int64_t *first, const int64_t *second, const int32_t *shifts,
                                           const double *by_energies, const double *moved, const double *strain,
                                           double *gradient);

/* Weights of a network and what SOAP keeps of them; see mdpot.training.soap. */
typedef struct {
  int64_t n, rows, columns;       /* a stack of n matrices; where `rows` is 0, `columns` numbers that are no matrix */
  int64_t abreast;                /* so many of the matrices lie side by side in gradient and weights; it divides n */
  const float *gradient;          /* [n / abreast][rows][abreast][columns] */
  float *weights;                 /* the same */
  float *mean, *second;           /* Adam's moments, in the eigenbasis, [n][rows][columns] */
  float *left, *right;            /* averages of G Gᵀ [n][rows][rows], and of Gᵀ G [n][columns][columns]; NULL: none */
  float *left_basis, *right_basis; /* their eigenvectors, in columns */
} mdpot_soap_weights;

typedef struct {
  double rate;                    /* learning rate over the first moment's 1 - beta1^t */
  double keep;                    /* what weight decay leaves of the weights */
  double beta1, beta2, basis_beta;
  double root_scale;              /* (1 - beta2^t)^-1/2 */
  double eps;
} mdpot_soap_settings;

/* One step of all of them. The result is the same to the bit for any number of threads. */
MDPOT_EXPORT int32_t mdpot_soap_step(int64_t count, const mdpot_soap_weights *weights,
                                     const mdpot_soap_settings *settings, int32_t threads);

/* New eigenvectors of the averages by one power iteration and a QR, in the order of falling eigenvalues. The first
 * moment is turned along, the second follows the order. The gradient is not read. The same to the bit, too. */
MDPOT_EXPORT int32_t mdpot_soap_refresh(int64_t count, const mdpot_soap_weights *weights, int32_t threads);

/* Pairs of atoms closer than a cutoff. */
typedef struct mdpot_pairs mdpot_pairs;

/* Searches them: both directions, each periodic image on its own, an atom's own images included.
 *
 *   positions  [n_atoms][3], Å, wrapped or not
 *   cell       [3][3], Å, rows are lattice vectors; those of aperiodic directions are ignored
 *   periodic   [3], which directions repeat
 *   cutoff     Å
 *   threads    at most; what is found does not depend on it
 *   pairs      what is found, for the calls below
 *   n_pairs    their number
 *
 * MDPOT_BAD_ARGUMENT says that another search has to do it, or that none can: no atoms, positions or lattice vectors
 * that are not finite, beyond 1e9 Å or almost in one plane, atoms more than 2^29 cells away, a cell so small that there
 * are millions of candidates for an atom, or a volume that is next to empty. */
MDPOT_EXPORT int32_t mdpot_pairs_find(int64_t n_atoms, const double *positions, const double *cell,
                                      const uint8_t *periodic, double cutoff, int32_t threads, mdpot_pairs **pairs,
                                      int64_t *n_pairs);
/* Writes them as mdpot_kernel_evaluate takes candidates, in the order of first, second and shift. */
MDPOT_EXPORT int32_t mdpot_pairs_write(const mdpot_pairs *pairs, int64_t *first, int64_t *second, int32_t *shifts);
MDPOT_EXPORT void mdpot_pairs_destroy(mdpot_pairs *pairs);

/* What went wrong in this thread's last call of a kernel or of SOAP that failed: one line. */
MDPOT_EXPORT const char *mdpot_kernels_error(void);
MDPOT_EXPORT int32_t mdpot_kernels_abi(void);
/* "baseline", "avx2", "avx512" or "neon": what the library was compiled for. */
MDPOT_EXPORT const char *mdpot_kernels_instructions(void);
/* Whether this processor runs a library that was compiled for that; may be asked of any library that it runs. */
MDPOT_EXPORT int32_t mdpot_kernels_runs(const char *instructions);

#ifdef __cplusplus
}
#endif
#endif
