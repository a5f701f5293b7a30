// Sums over the neighbors of an atom: what neighbors send, weighted by functions of the vectors to them; forward and
// back. In the scratch, moments_of[degree] is [2 degree + 1][BLOCK][stride].
#pragma once

#include "message_tables.h"
#include "neighbors.h"

namespace mdpot {

// Edge functions of one atom of a block, in the scratch's place for it.
template <class T> struct EdgePlaces {
  T *radial, *slope, *angular, *basis, *sent_back;
};

template <class T> EdgePlaces<T> places(const Model<T>& model, Scratch<T>& scratch, int a, size_t most, int columns) {
  const Sizes& z = model.sizes;
  return {&scratch.radial[a * (z.order + 1) * z.radial * most], &scratch.slope[a * z.basis * most],
          &scratch.angular[a * z.components * most], &scratch.basis[a * z.rows() * most],
          &scratch.sent_back[a * columns * most]};
}

// Rows of what the neighbors send into scratch.gathered [n][columns], and transposed into sent_back [columns][n].
template <class T>
void gather(const Model<T>& model, const Structure& s, const T* sent, const Neighbors<T>& edges, int columns,
            Scratch<T>& scratch, T* sent_back) {
  T* to = scratch.gathered.data();
  for (int k = 0; k < edges.n; k++, to += columns) {
    const int64_t j = edges.atom[k];
    if (sent) {
      memcpy(to, sent + j * columns, sizeof(T) * columns);
      continue;
    }
    const T* of_element = &model.start.sent[size_t(s.species[j]) * columns];
    const T mark = s.marks ? T(s.marks[j]) : T(0);
    for (int c = 0; c < columns; c++) to[c] = of_element[c] + mark * model.start.sent_mark[c];
  }
  for (int k = 0; k < edges.n; k += LANES<T>)
    for (int c = 0; c < columns; c += LANES<T>) {
      Vector<T> rows[LANES<T>];
      for (int q = 0; q < LANES<T>; q++) rows[q] = load<T>(scratch.gathered.data() + (k + q) * columns + c);
      transpose<T>(rows);
      for (int q = 0; q < LANES<T>; q++) store<T>(sent_back + (c + q) * edges.n + k, rows[q]);
    }
}

// each(c) for the channels, as many at a time as a vector of 16, 32 or 64 bytes holds: `channels` may be fewer than the
// lanes of the widest.
template <class T, int BYTES, class F> void couple_wide(int channels, F&& each) {
  for (int c = 0; c < channels; c += BYTES / int(sizeof(T))) each(c, typename Register<T, BYTES>::Float{});
}

template <class T, class F> MDPOT_INLINE void couple(int channels, F&& each) {
  const int bytes = channels * sizeof(T);
#if MDPOT_VECTOR_BYTES >= 64
  if (bytes % 64 == 0) return couple_wide<T, 64>(channels, each);
#endif
#if MDPOT_VECTOR_BYTES >= 32
  if (bytes % 32 == 0) return couple_wide<T, 32>(channels, each);
#endif
  (void)bytes;
  couple_wide<T, 16>(channels, each);
}

// f(SENT), as a constant: the largest l of what neighbors send.
template <int ORDER, class F> MDPOT_INLINE void with_sent(const Sizes& z, F&& f) {
  if constexpr (ORDER >= 2)
    if (z.sent > 4) return f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 1>());
}

// Where the moments of an atom that one row of the messages gives begin, [n_radial][channels].
template <class T, int ORDER, int SENT>
void message_places(const Model<T>& model, const Layer<T>& layer, int a, const Scratch<T>& scratch, T** places) {
  constexpr auto rows = Messages<ORDER, SENT>::rows;
  for (size_t r = 0; r < rows.size(); r++)
    places[r] = scratch.moments_of[rows[r].degree] + (rows[r].m * BLOCK + a) * layer.stride[rows[r].degree] +
                rows[r].path * model.sizes.radial * layer.channels;
}

// Moments of harmonics and channels, found [(m, b)][(s, c)], as those of each degree that the mixing weights take.
template <class T, int ORDER, int SENT>
void couple_moments(const Model<T>& model, const Layer<T>& layer, int a, Scratch<T>& scratch) {
  constexpr auto terms = Messages<ORDER, SENT>::terms;
  constexpr int ROWS = Messages<ORDER, SENT>::rows.size();
  const int B = model.sizes.radial, C = layer.channels, columns = layer.columns;
  T* to[ROWS];
  message_places<T, ORDER, SENT>(model, layer, a, scratch, to);
  for (int b = 0; b < B; b++)
    couple<T>(C, [&](int c, auto zero) MDPOT_INLINE_LAMBDA {
      const T* found = scratch.found.data() + b * columns + c;
      decltype(zero) sum = zero, value;
      unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
        constexpr AngularTerm term = terms[t];
        memcpy(&value, found + term.first * B * columns + term.second * C, sizeof value);
        sum += T(term.coefficient) * value;
        if constexpr (t + 1 < terms.size())
          if constexpr (terms[t + 1].row == term.row) return;
        memcpy(to[term.row] + b * C + c, &sum, sizeof sum);
        sum = zero;
      });
    });
}

template <class T, int ORDER, int SENT>
void couple_back(const Model<T>& model, const Layer<T>& layer, int a, Scratch<T>& scratch) {
  constexpr auto terms = Messages<ORDER, SENT>::terms_by_source;
  constexpr int ROWS = Messages<ORDER, SENT>::rows.size();
  const int B = model.sizes.radial, C = layer.channels, columns = layer.columns;
  T* from[ROWS];
  message_places<T, ORDER, SENT>(model, layer, a, scratch, from);
  for (int b = 0; b < B; b++)
    couple<T>(C, [&](int c, auto zero) MDPOT_INLINE_LAMBDA {
      T* found = scratch.found.data() + b * columns + c;
      decltype(zero) rows[ROWS], sum = zero;
      for (int r = 0; r < ROWS; r++) memcpy(&rows[r], from[r] + b * C + c, sizeof zero);
      unrolled<terms.size()>([&](auto t) MDPOT_INLINE_LAMBDA {
        constexpr AngularTerm term = terms[t];
        if constexpr (term.coefficient != 0) sum += T(term.coefficient) * rows[term.row];
        if constexpr (t + 1 < terms.size())
          if constexpr (terms[t + 1].first == term.first && terms[t + 1].second == term.second) return;
        memcpy(found + term.first * B * columns + term.second * C, &sum, sizeof sum);
        sum = zero;
      });
    });
}

// The first layer's moments have no couplings: a copy between found [(m, b)][columns] and those of each degree.
template <class T> void copy_moments(const Model<T>& model, const Layer<T>& layer, int a, Scratch<T>& s, bool back) {
  const int size = model.sizes.radial * layer.columns;
  for (int l = 0, m = 0; l <= model.sizes.order; l++)
    for (int row = 0; row <= 2 * l; row++, m++) {
      T* of_degree = s.moments_of[l] + (row * BLOCK + a) * layer.stride[l];
      T* found = &s.found[m * size];
      memcpy(back ? found : of_degree, back ? of_degree : found, sizeof(T) * size);
    }
}

// Moments of one atom whose neighbors send `columns` numbers each (all layers, where nothing is folded). `slope`: for
// `sum_sent_back`, right after, the edge functions are kept with their derivatives.
template <class T, int ORDER>
void sum_sent(const Model<T>& model, const Structure& s, const Layer<T>& layer, const T* sent,
              const Neighbors<T>& edges, int a, size_t most, Scratch<T>& scratch, bool slope) {
  const Sizes& z = model.sizes;
  const int n = edges.n, columns = layer.columns;
  const EdgePlaces<T> at = places(model, scratch, a, most, columns);
  edge_functions<T, ORDER>(model, edges, scratch, at.radial, at.angular, slope ? at.slope : nullptr);
  edge_basis<T, ORDER>(z.radial, n, at.radial, at.angular, at.basis);
  gather(model, s, sent, edges, columns, scratch, at.sent_back);
  multiply<T>(z.rows(), columns, edges.count, {at.basis, n}, scratch.gathered.data(), columns, scratch.found.data(),
              columns);
  if (layer.first)
    copy_moments(model, layer, a, scratch, false);
  else
    with_sent<ORDER>(z, [&](auto top) { couple_moments<T, ORDER, top>(model, layer, a, scratch); });
}

// From derivatives by an atom's moments, in moments_of, to those by its neighbors' vectors and, into dsent, by what
// they sent. Edge functions and what was sent are still in their places where `fresh`.
template <class T, int ORDER>
void sum_sent_back(const Model<T>& model, const Structure& s, const Layer<T>& layer, const T* sent,
                   const Neighbors<T>& edges, int a, size_t most, Scratch<T>& scratch, bool fresh, bool add,
                   Scattered<T>* dsent) {
  const Sizes& z = model.sizes;
  const int n = edges.n, columns = layer.columns;
  const EdgePlaces<T> at = places(model, scratch, a, most, columns);
  if (layer.first)
    copy_moments(model, layer, a, scratch, true);
  else
    with_sent<ORDER>(z, [&](auto top) { couple_back<T, ORDER, top>(model, layer, a, scratch); });
  if (!fresh) {
    edge_functions<T, ORDER>(model, edges, scratch, at.radial, at.angular, at.slope);
    if (dsent) edge_basis<T, ORDER>(z.radial, n, at.radial, at.angular, at.basis);
    gather(model, s, sent, edges, columns, scratch, at.sent_back);
  }
  const T* dfound = scratch.found.data();
  T* dbasis = scratch.dbasis.data();
  multiply<T>(z.rows(), n, columns, {dfound, columns}, at.sent_back, n, dbasis, n);
  if (dsent) {
    T* from = scratch.dsent.data();
    multiply<T>(edges.count, columns, z.rows(), {at.basis, 1, n}, dfound, columns, from, columns);
    for (int k = 0; k < edges.count; k++, from += columns) {
      const size_t j = edges.atom[k];
      dsent->touched[j / Scattered<T>::PAGE] = 1;
      T* to = &dsent->values[j * columns];
      for (int c = 0; c < columns; c += LANES<T>) store<T>(to + c, load<T>(to + c) + load<T>(from + c));
    }
  }
  const auto by_basis = [&](int k, int l, int m, int b) MDPOT_INLINE_LAMBDA {
    return load<T>(dbasis + ((l * l + m) * z.radial + b) * n + k);
  };
  basis_back<T, ORDER>(z.radial, n, at.radial, at.angular, by_basis, scratch.dradial.data(), scratch.dangular.data());
  edge_gradient<T, ORDER>(model, edges, scratch, at.slope, scratch.dradial.data(), scratch.dangular.data(), add);
}

// masks [element][n]: one at the neighbors of the element, zero at the others.
template <class T> void find_masks(const Model<T>& model, const Neighbors<T>& edges, T* masks) {
  for (int e = 0; e < model.sizes.elements; e++, masks += edges.n)
    for (int k = 0; k < edges.n; k += LANES<T>)
      store<T>(masks + k, load<T>(edges.kind + k) == T(e) ? all<T>(1) : all<T>(0));
}

// masked [(l, b, element)][n]: the radial functions of the neighbors of each element, zero at the others.
template <class T>
void mask_radial(const Model<T>& model, const Neighbors<T>& edges, const T* radial, Scratch<T>& scratch) {
  const Sizes& z = model.sizes;
  const int n = edges.n;
  find_masks(model, edges, scratch.masks.data());
  T* to = scratch.masked.data();
  for (int row = 0; row < (z.order + 1) * z.radial; row++)
    for (int e = 0; e < z.elements; e++, to += n)
      for (int k = 0; k < n; k += LANES<T>)
        store<T>(to + k, load<T>(radial + row * n + k) * load<T>(&scratch.masks[e * n + k]));
}

// Moments of one atom for each element, which the folded weights of the first layer take.
template <class T, int ORDER>
void sum_elements(const Model<T>& model, const Neighbors<T>& edges, int a, size_t most, Scratch<T>& scratch) {
  const int n = edges.n, depth = model.start.depth, stride = model.start.stride;
  const EdgePlaces<T> at = places(model, scratch, a, most, 0);
  edge_functions<T, ORDER>(model, edges, scratch, at.radial, at.angular, nullptr);
  mask_radial(model, edges, at.radial, scratch);
  for (int l = 0; l <= ORDER; l++)
    inner_products<T>(2 * l + 1, depth, n, at.angular + l * l * n, scratch.masked.data() + l * depth * n,
                      scratch.moments_of[l] + a * stride, BLOCK * stride);
}

template <class T, int ORDER>
void sum_elements_back(const Model<T>& model, const Neighbors<T>& edges, int a, size_t most, Scratch<T>& scratch,
                       bool add) {
  const Sizes& z = model.sizes;
  const int n = edges.n, stride = model.start.stride;
  const EdgePlaces<T> at = places(model, scratch, a, most, 0);
  edge_functions<T, ORDER>(model, edges, scratch, at.radial, at.angular, at.slope);
  find_masks(model, edges, scratch.masks.data());
  const auto by_basis = [&](int k, int l, int m, int b) MDPOT_INLINE_LAMBDA {
    const T* by_moment = scratch.moments_of[l] + (m * BLOCK + a) * stride + b * z.elements;
    Vector<T> found = by_moment[0] * load<T>(&scratch.masks[k]);
    for (int e = 1; e < z.elements; e++) found += by_moment[e] * load<T>(&scratch.masks[e * n + k]);
    return found;
  };
  basis_back<T, ORDER>(z.radial, n, at.radial, at.angular, by_basis, scratch.dradial.data(), scratch.dangular.data());
  edge_gradient<T, ORDER>(model, edges, scratch, at.slope, scratch.dradial.data(), scratch.dangular.data(), add);
}

}  // namespace mdpot
