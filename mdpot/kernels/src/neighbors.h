// From candidates to the neighbors of an atom, and the functions of their vectors that sums over neighbors weight.
#pragma once

#include <cmath>
#include <stdexcept>

#include "functions.h"
#include "matrix.h"
#include "structure.h"
#include "workspace.h"

namespace mdpot {

// Lattice translations by shifts of at most one cell, which nearly all are.
struct Translations {
  double near[27][3];
  const double* cell;

  explicit Translations(const double* cell) : cell(cell) {
    for (int k = 0; k < 27; k++) {
      const int32_t shift[3] = {k / 9 - 1, k / 3 % 3 - 1, k % 3 - 1};
      compute(shift, near[k]);
    }
  }
  void compute(const int32_t* shift, double* to) const {
    for (int c = 0; c < 3; c++) to[c] = shift[0] * cell[c] + shift[1] * cell[3 + c] + shift[2] * cell[6 + c];
  }
  const double* of(const int32_t* shift, double* room) const {
    const uint32_t a = shift[0] + 1u, b = shift[1] + 1u, c = shift[2] + 1u;
    if (a < 3 && b < 3 && c < 3) return near[a * 9 + b * 3 + c];
    compute(shift, room);
    return room;
  }
};

inline std::vector<Translations> translations_of(const Structure& s) {
  std::vector<Translations> all;
  for (int64_t system = 0; system < s.n_systems; system++) all.emplace_back(s.cell + 9 * system);
  return all;
}

inline mdpot_status check(const Structure& s, int elements) {
  for (int64_t k = 0; k < 3 * s.n_atoms; k++)
    if (!std::isfinite(s.positions[k])) return MDPOT_NOT_FINITE;
  for (int64_t k = 0; k < 9 * s.n_systems; k++)
    if (!std::isfinite(s.cell[k])) return MDPOT_NOT_FINITE;
  for (int64_t i = 0; i < s.n_atoms; i++)
    if (uint32_t(s.species[i]) >= uint32_t(elements) || s.of(i) >= size_t(s.n_systems)) return MDPOT_BAD_ARGUMENT;
  return MDPOT_OK;
}

// Where the candidates of the atoms [from, to) begin. Returns the padded number of the most that one of them has.
template <class T> size_t find_candidates(const Structure& s, State<T>& state, size_t from, size_t to) {
  const int64_t *begin = s.first, *end = s.first + s.n_candidates;
  const int64_t *at = from ? std::lower_bound(begin, end, int64_t(from)) : begin;
  const int64_t *stop = int64_t(to) < s.n_atoms ? std::lower_bound(begin, end, int64_t(to)) : end;
  int64_t most = 0;
  for (size_t i = from; i < to; i++) {
    const int64_t* start = at;
    state.first[i] = at - begin;
    while (at < end && *at == int64_t(i)) at++;
    state.count[i] = int32_t(at - start);  // until `select_neighbors` has them
    most = std::max<int64_t>(most, at - start);
  }
  // An array that is not in order, or names atoms that are not there, has entries that nobody came by.
  if (at != stop) throw std::invalid_argument("candidates");
  return padded<T>(int(std::max<int64_t>(most, 1)));  // room for one, so that there are arrays to point to
}

// The candidates of one atom inside the cutoff; vectors are taken in double. Stores what is not yet normalized: x, y, z
// and, as distance, its square. Returns whether all indices are of atoms.
template <class T>
bool select_neighbors(const Structure& s, const Translations& translations, const Model<T>& model, State<T>& state,
                      size_t atom) {
  Neighbors<T> to = state.neighbors(atom);
  const double* center = s.positions + 3 * atom;
  const double limit = model.cutoff_squared;
  double room[3];
  const int64_t stop = state.first[atom] + state.count[atom];
  int count = 0;
  bool good = true;
  for (int64_t e = state.first[atom]; e < stop; e++) {
    int64_t j = s.second[e];
    const bool known = uint64_t(j) < uint64_t(s.n_atoms);
    good &= known;
    j = known ? j : 0;
    const double* other = s.positions + 3 * j;
    const double* shift = translations.of(s.shifts + 3 * e, room);
    const double x = other[0] - center[0] + shift[0], y = other[1] - center[1] + shift[1],
                 z = other[2] - center[2] + shift[2], square = x * x + y * y + z * z;
    to.atom[count] = int32_t(j);
    to.x[count] = T(x);
    to.y[count] = T(y);
    to.z[count] = T(z);
    to.distance[count] = T(square);
    to.kind[count] = T(s.species[j]);
    count += square < limit;
  }
  state.count[atom] = count;
  // Empty slots hold a neighbor at the cutoff, where every function of the distance is zero.
  for (int k = count; k < padded<T>(count); k++) {
    to.atom[k] = int32_t(atom);
    to.x[k] = model.cutoff;
    to.y[k] = to.z[k] = 0;
    to.distance[k] = model.cutoff * model.cutoff;
    to.kind[k] = -1;
  }
  to.n = padded<T>(count);
  for (int k = 0; k < to.n; k += LANES<T>) {
    const Vector<T> d = sqrt<T>(load<T>(to.distance + k)), inverse = T(1) / d;
    store<T>(to.distance + k, d);
    for (T* axis : {to.x, to.y, to.z}) store<T>(axis + k, load<T>(axis + k) * inverse);
  }
  return good;
}

// The neighbors of the atoms [from, to), whose candidates were found.
template <class T>
void select_neighbors(const Structure& s, const std::vector<Translations>& translations, const Model<T>& model,
                      State<T>& state, size_t from, size_t to) {
  for (size_t i = from; i < to; i++)
    if (!select_neighbors(s, translations[s.of(i)], model, state, i)) throw std::invalid_argument("candidates");
}

// R_bl(d) into radial [(order + 1) n_radial][n] and Y_lm(u) into angular [components][n]; where slope is not null, the
// derivatives of the Bessel functions into it, [n_basis][n].
template <class T, int ORDER>
void edge_functions(const Model<T>& model, const Neighbors<T>& edges, Scratch<T>& scratch, T* radial, T* angular,
                    T* slope) {
  const Sizes& z = model.sizes;
  const int n = edges.n, rows = (ORDER + 1) * z.radial;
  bessel_functions<T>(edges.distance, n, z.basis, model.frequency, model.cutoff, model.norm, scratch.bessel.data(),
                      slope);
  multiply<T>(rows, n, z.basis, {model.radial.data(), z.basis}, scratch.bessel.data(), n, radial, n);
  for (int k = 0; k < n; k += LANES<T>) {
    Vector<T> Y[(ORDER + 1) * (ORDER + 1)];
    harmonics<T, ORDER>(load<T>(edges.x + k), load<T>(edges.y + k), load<T>(edges.z + k), Y);
    for (int m = 0; m < (ORDER + 1) * (ORDER + 1); m++) store<T>(angular + m * n + k, Y[m]);
  }
}

// R_bl Y_lm as basis [components n_radial][n], rows by l, m, then b.
template <class T, int ORDER> void edge_basis(int n_radial, int n, const T* radial, const T* angular, T* basis) {
  for (int l = 0, m = 0; l <= ORDER; l++)
    for (; m < (l + 1) * (l + 1); m++)
      for (int b = 0; b < n_radial; b++, basis += n)
        for (int k = 0; k < n; k += LANES<T>)
          store<T>(basis + k, load<T>(radial + (l * n_radial + b) * n + k) * load<T>(angular + m * n + k));
}

// From derivatives by the basis, by_basis(k, l, m, b) of the neighbors from k on, to those by R and Y.
template <class T, int ORDER, class F>
void basis_back(int n_radial, int n, const T* radial, const T* angular, F&& by_basis, T* dradial, T* dangular) {
  for (int k = 0; k < n; k += LANES<T>)
    unrolled<ORDER + 1>([&](auto l) MDPOT_INLINE_LAMBDA {
      constexpr int first = l * l, M = 2 * l + 1;
      Vector<T> Y[M], dY[M];
      for (int m = 0; m < M; m++) {
        Y[m] = load<T>(angular + (first + m) * n + k);
        dY[m] = all<T>(0);
      }
      for (int b = 0; b < n_radial; b++) {
        const Vector<T> R = load<T>(radial + (l * n_radial + b) * n + k);
        Vector<T> dR = all<T>(0);
        for (int m = 0; m < M; m++) {
          const Vector<T> d = by_basis(k, l, m, b);
          dR += d * Y[m];
          dY[m] += d * R;
        }
        store<T>(dradial + (l * n_radial + b) * n + k, dR);
      }
      for (int m = 0; m < M; m++) store<T>(dangular + (first + m) * n + k, dY[m]);
    });
}

// From derivatives by R and Y to those by the neighbors' vectors, added to what the edges hold, or instead of it.
// `slope` is of `edge_functions`.
template <class T, int ORDER>
void edge_gradient(const Model<T>& model, const Neighbors<T>& edges, Scratch<T>& scratch, const T* slope,
                   const T* dradial, const T* dangular, bool add) {
  using V = Vector<T>;
  const int n = edges.n, n_basis = model.sizes.basis, rows = (ORDER + 1) * model.sizes.radial;
  constexpr int M = (ORDER + 1) * (ORDER + 1);
  multiply<T>(n_basis, n, rows, {model.radial.data(), 1, n_basis}, dradial, n, scratch.dbessel.data(), n);
  for (int k = 0; k < n; k += LANES<T>) {
    const V x = load<T>(edges.x + k), y = load<T>(edges.y + k), z = load<T>(edges.z + k);
    const V inverse = T(1) / load<T>(edges.distance + k);
    V by_distance = all<T>(0), dY[M], gx, gy, gz;
    for (int b = 0; b < n_basis; b++)
      by_distance += load<T>(scratch.dbessel.data() + b * n + k) * load<T>(slope + b * n + k);
    for (int m = 0; m < M; m++) dY[m] = load<T>(dangular + m * n + k);
    harmonics_back<T, ORDER>(x, y, z, dY, gx, gy, gz);
    const V along = by_distance - (gx * x + gy * y + gz * z) * inverse;
    gx = gx * inverse + x * along;
    gy = gy * inverse + y * along;
    gz = gz * inverse + z * along;
    store<T>(edges.gx + k, add ? load<T>(edges.gx + k) + gx : gx);
    store<T>(edges.gy + k, add ? load<T>(edges.gy + k) + gy : gy);
    store<T>(edges.gz + k, add ? load<T>(edges.gz + k) + gz : gz);
  }
}

}  // namespace mdpot
