// Sums over the neighbors of an atom, of duals: forward, and back to the radial weights and what neighbors sent.
//
// The radial functions are a linear map of the Bessel functions, and are applied to sums instead of edges: an atom's
// sums are those of Bessel functions times harmonics, [(l, k, m)][columns], from which follow the sums of radial
// functions times harmonics, [(l, b, m)][columns]. Derivatives then never reach an edge, save for what was sent.
#pragma once

#include "gradient_workspace.h"
#include "moments.h"
#include "neighbors.h"

namespace mdpot {

// The direction in which an atom's vectors to its neighbors go, along which all is differentiated, for that in which
// atoms go [n_atoms][3] and a strain [3][3] of their structure; either may be null.
template <class T>
void set_directions(const Neighbors<T>& edges, size_t i, const double* moved, const double* strain) {
  for (int k = 0; k < edges.n; k++) {
    T* const to[3] = {edges.gx + k, edges.gy + k, edges.gz + k};
    const T r[3] = {edges.x[k], edges.y[k], edges.z[k]};
    const size_t j = edges.atom[k];
    for (int c = 0; c < 3; c++) {
      double along = 0;
      if (k < edges.count && moved) along = moved[3 * j + c] - moved[3 * i + c];
      if (k < edges.count && strain)
        for (int d = 0; d < 3; d++) along += strain[3 * c + d] * double(r[d]) * double(edges.distance[k]);
      *to[c] = T(along);
    }
  }
}

// Bessel functions times harmonics of one atom's neighbors into scratch.basis [2][(l, k, m)][n].
template <class T, int ORDER> void dual_basis(const Model<T>& model, const Neighbors<T>& edges, DualScratch<T>& scratch) {
  using V = Vector<T>;
  constexpr int M = (ORDER + 1) * (ORDER + 1);
  const int n = edges.n, K = model.sizes.basis;
  const size_t half = size_t(M) * K * n;
  bessel_functions<T>(edges.distance, n, K, model.frequency, model.cutoff, model.norm, scratch.bessel.data(),
                      scratch.slope.data());
  for (int e = 0; e < n; e += LANES<T>) {
    const V x = load<T>(edges.x + e), y = load<T>(edges.y + e), z = load<T>(edges.z + e);
    const V tx = load<T>(edges.gx + e), ty = load<T>(edges.gy + e), tz = load<T>(edges.gz + e);
    const V inverse = T(1) / load<T>(edges.distance + e), stretch = tx * x + ty * y + tz * z;
    Dual<T> Y[M];
    harmonics<T, ORDER>(Dual<T>{x, (tx - x * stretch) * inverse}, Dual<T>{y, (ty - y * stretch) * inverse},
                        Dual<T>{z, (tz - z * stretch) * inverse}, Y);
    T* to = scratch.basis.data() + e;
    for (int l = 0; l <= ORDER; l++)
      for (int k = 0; k < K; k++) {
        const Dual<T> radial{load<T>(&scratch.bessel[k * n + e]), load<T>(&scratch.slope[k * n + e]) * stretch};
        for (int m = l * l; m < (l + 1) * (l + 1); m++, to += n) store_dual<T>(to, half, radial * Y[m]);
      }
  }
}

// Rows of what the neighbors send into scratch.gathered: [2][count][columns]; of the first layer, which does not depend
// on positions, the values alone. `sent` is [atoms][2][columns], null for the first layer.
template <class T>
void dual_gather(const Model<T>& model, const Structure& s, const T* sent, const Neighbors<T>& edges, int columns,
                 DualScratch<T>& scratch) {
  T *to = scratch.gathered.data(), *slopes = to + edges.count * columns;
  for (int k = 0; k < edges.count; k++, to += columns, slopes += columns) {
    const size_t j = edges.atom[k];
    if (sent) {
      memcpy(to, sent + 2 * j * columns, sizeof(T) * columns);
      memcpy(slopes, sent + (2 * j + 1) * columns, sizeof(T) * columns);
      continue;
    }
    const T* of_element = &model.start.sent[size_t(s.species[j]) * columns];
    const T mark = s.marks ? T(s.marks[j]) : T(0);
    for (int c = 0; c < columns; c++) to[c] = of_element[c] + mark * model.start.sent_mark[c];
  }
}

// Where the sums of each component of the harmonics begin, and how far apart those of two radial functions are, in
// found [(l, b, m)][columns].
template <int ORDER> struct Components {
  int start[(ORDER + 1) * (ORDER + 1)], apart[(ORDER + 1) * (ORDER + 1)];

  Components(int n_radial, int columns) {
    for (int l = 0; l <= ORDER; l++)
      for (int m = 0; m <= 2 * l; m++) {
        start[l * l + m] = (l * l * n_radial + m) * columns;
        apart[l * l + m] = (2 * l + 1) * columns;
      }
  }
};

// The first layer's moments have no couplings: a copy between found and those of each degree.
template <class T, int ORDER>
void dual_copy(const Model<T>& model, const Layer<T>& layer, int a, int half, const Kept<T>& kept, T* found, bool back) {
  const int B = model.sizes.radial, C = layer.channels;
  const Components<ORDER> of(B, layer.columns);
  for (int l = 0; l <= ORDER; l++)
    for (int m = 0; m <= 2 * l; m++)
      for (int b = 0; b < B; b++) {
        T* one = found + of.start[l * l + m] + b * of.apart[l * l + m];
        T* other = kept.moments[l] + ((2 * m + half) * BLOCK + a) * layer.stride[l] + b * C;
        memcpy(back ? one : other, back ? other : one, sizeof(T) * C);
      }
}

// Sums of radial functions, found, to the moments of each degree that the mixing weights take, or back.
template <class T, int ORDER, int SENT>
void dual_couple(const Model<T>& model, const Layer<T>& layer, int a, int half, const Kept<T>& kept, T* found,
                 bool back) {
  constexpr auto rows = Messages<ORDER, SENT>::rows;
  const int B = model.sizes.radial, C = layer.channels;
  const Components<ORDER> of(B, layer.columns);
  T* moments[rows.size()];
  for (size_t r = 0; r < rows.size(); r++)
    moments[r] = kept.moments[rows[r].degree] +
                 ((2 * rows[r].m + half) * BLOCK + a) * layer.stride[rows[r].degree] + rows[r].path * B * C;
  for (int b = 0; b < B; b++)
    couple<T>(C, [&](int c, auto zero) MDPOT_INLINE_LAMBDA {
      decltype(zero) sum = zero, value;
      if (back) {
        constexpr auto terms = Messages<ORDER, SENT>::terms_by_source;
        unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
          constexpr AngularTerm term = terms[t];
          memcpy(&value, moments[term.row] + b * C + c, sizeof value);
          if constexpr (term.coefficient != 0) sum += T(term.coefficient) * value;
          if constexpr (t + 1 < terms.size())
            if constexpr (terms[t + 1].first == term.first && terms[t + 1].second == term.second) return;
          memcpy(found + of.start[term.first] + b * of.apart[term.first] + term.second * C + c, &sum, sizeof sum);
          sum = zero;
        });
      } else {
        constexpr auto terms = Messages<ORDER, SENT>::terms;
        unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
          constexpr AngularTerm term = terms[t];
          memcpy(&value, found + of.start[term.first] + b * of.apart[term.first] + term.second * C + c, sizeof value);
          sum += T(term.coefficient) * value;
          if constexpr (t + 1 < terms.size())
            if constexpr (terms[t + 1].row == term.row) return;
          memcpy(moments[term.row] + b * C + c, &sum, sizeof sum);
          sum = zero;
        });
      }
    });
}

template <class T, int ORDER>
void dual_exchange(const Model<T>& model, const Layer<T>& layer, int a, const Kept<T>& kept, T* found, bool back) {
  for (int half = 0; half < 2; half++, found += model.sizes.rows() * layer.columns)
    if (layer.first)
      dual_copy<T, ORDER>(model, layer, a, half, kept, found, back);
    else
      with_sent<ORDER>(model.sizes, [&](auto top) {
        dual_couple<T, ORDER, top>(model, layer, a, half, kept, found, back);
      });
}

// Moments of one atom of a block, and the sums that they are made of.
template <class T, int ORDER>
void sum_neighbors(const Model<T>& model, const Structure& s, const Layer<T>& layer, const T* sent,
                   const Neighbors<T>& edges, int a, const Kept<T>& kept, DualScratch<T>& scratch) {
  const Sizes& z = model.sizes;
  const int n = edges.n, columns = layer.columns, rows = z.components * z.basis;
  T *sums = kept.sums + size_t(a) * 2 * rows * columns, *found = scratch.found.data();
  dual_basis<T, ORDER>(model, edges, scratch);
  dual_gather(model, s, sent, edges, columns, scratch);
  const T *basis = scratch.basis.data(), *from = scratch.gathered.data(), *slopes = basis + rows * n;
  // The derivative of a product: basis' sent + basis sent'.
  multiply<T>(rows, columns, edges.count, {basis, n}, from, columns, sums, columns);
  multiply<T>(rows, columns, edges.count, {slopes, n, 1, sent ? 2 : 1, -rows * n}, from, columns,
              sums + rows * columns, columns);
  for (int half = 0; half < 2; half++)
    for (int l = 0; l <= z.order; l++) {
      const int wide = (2 * l + 1) * columns;
      multiply<T>(z.radial, wide, z.basis, {&model.radial[l * z.radial * z.basis], z.basis},
                  sums + (half * z.components + l * l) * z.basis * columns, wide,
                  found + (half * z.components + l * l) * z.radial * columns, wide);
    }
  dual_exchange<T, ORDER>(model, layer, a, kept, found, false);
}

// to[b K + k] += the sums of d[b]' · of[k] + d[b] · of[k]' over `wide` numbers, lane by lane, for B rows d and K rows of;
// d_half and of_half lie between values and derivatives.
template <class T, int B, int K>
MDPOT_INLINE void add_overlaps(int wide, const T* d, int d_half, const T* of, int of_half, T* to, int to_row) {
  Vector<T> sum[B][K];
  for (int b = 0; b < B; b++)
    for (int k = 0; k < K; k++) sum[b][k] = load<T>(to + (b * to_row + k) * LANES<T>);
  for (int half = 0; half < 2; half++)
    for (int c = 0; c < wide; c += LANES<T>) {
      Vector<T> left[B];
      for (int b = 0; b < B; b++) left[b] = load<T>(d + (1 - half) * d_half + b * wide + c);
      for (int k = 0; k < K; k++) {
        const Vector<T> right = load<T>(of + half * of_half + k * wide + c);
        for (int b = 0; b < B; b++) sum[b][k] += left[b] * right;
      }
    }
  for (int b = 0; b < B; b++)
    for (int k = 0; k < K; k++) store<T>(to + (b * to_row + k) * LANES<T>, sum[b][k]);
}

// radial [(l, b, k)][LANES] += dfound(l, b)' · sums(l, k) + dfound(l, b) · sums(l, k)', for one atom.
template <class T>
void add_radial(const Sizes& z, int columns, const T* dfound, const T* sums, T* radial) {
  const int B = z.radial, K = z.basis, d_half = z.components * B * columns, of_half = z.components * K * columns;
  for (int l = 0; l <= z.order; l++) {
    const int wide = (2 * l + 1) * columns;
    const T *d = dfound + l * l * B * columns, *of = sums + l * l * K * columns;
    T* to = radial + l * B * K * LANES<T>;
    int b = 0;
    for (; b + 2 <= B; b += 2, d += 2 * wide, to += 2 * K * LANES<T>) {
      int k = 0;
      for (; k + 4 <= K; k += 4)
        add_overlaps<T, 2, 4>(wide, d, d_half, of + k * wide, of_half, to + k * LANES<T>, K);
      for (; k < K; k++) add_overlaps<T, 2, 1>(wide, d, d_half, of + k * wide, of_half, to + k * LANES<T>, K);
    }
    for (int k = 0; b < B && k < K; k++)
      add_overlaps<T, 1, 1>(wide, d, d_half, of + k * wide, of_half, to + k * LANES<T>, K);
  }
}

// From derivatives by an atom's moments, which are in `kept`, to those by the radial weights and by what neighbors
// sent: of the first layer the tables of elements and mark, else into dsent [atoms][2][columns].
template <class T, int ORDER>
void sum_neighbors_back(const Model<T>& model, const Structure& s, const Layer<T>& layer, const Neighbors<T>& edges,
                        int a, const Kept<T>& kept, DualScratch<T>& scratch, Scattered<T>* dsent) {
  const Sizes& z = model.sizes;
  const int n = edges.n, columns = layer.columns, rows = z.components * z.basis;
  const T* sums = kept.sums + size_t(a) * 2 * rows * columns;
  T *dfound = scratch.found.data(), *dsums = scratch.dsums.data(), *from = scratch.dsent.data();
  dual_exchange<T, ORDER>(model, layer, a, kept, dfound, true);
  add_radial(z, columns, dfound, sums, scratch.gradient.radial);
  for (int half = 0; half < 2; half++)
    for (int l = 0; l <= z.order; l++) {
      const int wide = (2 * l + 1) * columns;
      multiply<T>(z.basis, wide, z.radial, {&model.radial[l * z.radial * z.basis], 1, z.basis},
                  dfound + (half * z.components + l * l) * z.radial * columns, wide,
                  dsums + (half * z.components + l * l) * z.basis * columns, wide);
    }
  dual_basis<T, ORDER>(model, edges, scratch);
  const T *basis = scratch.basis.data(), *slopes = basis + rows * n;
  T* rates = from + edges.count * columns;
  if (dsent) multiply<T>(edges.count, columns, rows, {basis, 1, n}, dsums, columns, from, columns);
  multiply<T>(edges.count, columns, rows, {slopes, 1, n, 2, -rows * n}, dsums, columns, rates, columns);
  for (int k = 0; k < edges.count; k++) {
    const size_t j = edges.atom[k];
    if (dsent) {
      dsent->touched[j / Scattered<T>::PAGE] = 1;
      add_to(columns, from + k * columns, T(1), &dsent->values[2 * j * columns]);
      add_to(columns, rates + k * columns, T(1), &dsent->values[(2 * j + 1) * columns]);
    } else {
      add_to(columns, rates + k * columns, T(1), scratch.gradient.sent + size_t(s.species[j]) * columns);
      if (s.marks) add_to(columns, rates + k * columns, T(s.marks[j]), scratch.gradient.sent_mark);
    }
  }
}

}  // namespace mdpot
