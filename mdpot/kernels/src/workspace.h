// What an evaluation writes: results of every atom that later sweeps read, and scratch of each thread for one block.
#pragma once

#include <algorithm>
#include <vector>

#include "model.h"

namespace mdpot {

// What a layer's backward sweep needs of its forward one, for a block of atoms. Components, inputs and gates are
// [n][BLOCK][width].
template <class T> struct Saved {
  T* y;        // [components][BLOCK][width], normalized from l = 1 on
  T* inverse;  // [BLOCK], the factor that normalized it
  T* hidden;   // [BLOCK][hidden], before the activation
  T* gates;    // [outputs][BLOCK][width]
};

// The neighbors of one atom: `count` of them, and up to `n`, a multiple of LANES, ones at the cutoff without effect.
template <class T> struct Neighbors {
  int count, n;
  int32_t* atom;
  T *x, *y, *z;       // unit vector
  T* distance;        // Å
  T *gx, *gy, *gz;    // derivative of the energy by the vector, eV/Å
  T* kind;            // index of the element, -1 of those without effect
};

// Sums over neighbors land on atoms of other threads: each thread has a copy, all zero between evaluations, and knows
// the pages that it touched.
template <class U> struct Scattered {
  static constexpr int PAGE = 16;  // atoms
  Array<U> values;
  Array<unsigned char> touched;
  void grow(size_t atoms, int columns) {
    values.grow(atoms * columns);
    pages = atoms / PAGE + 1;
    touched.grow(pages);
  }
  void clear() { memset(touched.data(), 0, pages); }
  size_t pages = 0;
};

template <class T> struct State {
  size_t atoms = 0, blocks = 0;
  Array<int64_t> first;  // [atoms], of each atom's candidates
  Array<int32_t> count;
  Array<int32_t> neighbor;
  Array<T> geometry[8];  // x, y, z, distance, the three of the derivative and kind, [slots]
  std::vector<Array<T>> y, inverse, hidden, gates;  // [layer but the last]
  std::vector<Array<T>> sent;                       // [layer], empty for the first
  // By blocks, [width] and [components - 1][BLOCK][width]; from the last layer on, the derivatives by them.
  Array<T> h, x;
  // [part]; of what is sent two in turns, as one sweep reads the later layer's and writes the earlier's.
  std::vector<Scattered<T>> dsent[2];
  std::vector<Scattered<double>> dposition;

  // An atom's slots begin such that there is room for its candidates, rounded up.
  size_t slot(size_t atom) const {
    constexpr size_t L = LANES<T>;
    return first[atom] / L * L + atom * L;
  }

  void grow_neighbors(size_t n, size_t candidates) {
    atoms = n;
    blocks = (n + BLOCK - 1) / BLOCK;
    const size_t slots = candidates + (n + 2) * LANES<T>;
    first.grow(n);
    count.grow(n);
    neighbor.grow(slots);
    for (auto& array : geometry) array.grow(slots);
  }

  void grow(const Model<T>& model, size_t n, size_t candidates, int parts) {
    const Sizes& z = model.sizes;
    const size_t W = z.width, layers = model.layers.size();
    grow_neighbors(n, candidates);
    const size_t rows = blocks * BLOCK;
    for (auto* list : {&y, &inverse, &hidden, &gates, &sent}) list->resize(layers);
    for (size_t l = 0; l < layers; l++) {
      if (l > 0) sent[l].grow(n * model.layers[l].columns);
      if (l + 1 == layers) break;
      y[l].grow(rows * z.components * W);
      inverse[l].grow(rows);
      hidden[l].grow(rows * z.hidden);
      gates[l].grow(rows * model.layers[l].outputs * W);
    }
    h.grow(rows * W);
    if (layers > 1) x.grow(rows * (z.components - 1) * W);
    int columns = 0;
    for (size_t l = 1; l < layers; l++) columns = std::max(columns, model.layers[l].columns);
    for (size_t k = 0; k < 2; k++) {
      if (dsent[k].size() < size_t(parts)) dsent[k].resize(parts);
      // What the first layer sends is of no atom; two layers need one of them.
      for (auto& copy : dsent[k]) copy.grow(layers > k + 1 ? n : 0, columns);
    }
    if (dposition.size() < size_t(parts)) dposition.resize(parts);
    for (auto& copy : dposition) copy.grow(n, 3);  // of all parts: later ones read them all
  }

  Saved<T> saved(const Model<T>& model, int layer, size_t block) {
    const size_t rows = block * BLOCK, W = model.sizes.width;
    return {&y[layer][rows * model.sizes.components * W], &inverse[layer][rows],
            &hidden[layer][rows * model.sizes.hidden], &gates[layer][rows * model.layers[layer].outputs * W]};
  }

  Neighbors<T> neighbors(size_t atom) {
    const size_t k = slot(atom);
    T* at[8];
    for (int i = 0; i < 8; i++) at[i] = &geometry[i][k];
    return {count[atom], padded<T>(count[atom]), &neighbor[k], at[0], at[1], at[2], at[3], at[4], at[5], at[6],
            at[7]};
  }
};

// One thread's.
template <class T> struct Scratch {
  size_t most = 0;  // padded number of neighbors of an atom that there is room for
  // Of the neighbors of a block.
  Array<T> radial, angular, basis, sent_back, bessel, slope;
  Array<T> masks, masked, gathered, dbasis, dsent, dradial, dangular, dbessel, pairs;
  // Of the atoms of a block.
  Array<T> y, inverse, hidden, gates, blocks, inputs, active, readout, dy, moments, found, sent;
  std::vector<T*> moments_of;  // [degree]

  void grow(const Model<T>& model, size_t most) {
    const Sizes& z = model.sizes;
    const size_t W = z.width, M = z.components, MB = z.rows(), NR = (z.order + 1) * z.radial;
    const size_t elements = z.elements;
    size_t columns = 0, inputs_most = 0, outputs_most = 0, depth = model.start.stride * M;
    std::vector<size_t> strides(z.order + 1, model.start.stride);
    for (const Layer<T>& layer : model.layers) {
      columns = std::max<size_t>(columns, layer.columns);
      inputs_most = std::max<size_t>(inputs_most, layer.inputs);
      outputs_most = std::max<size_t>(outputs_most, layer.outputs);
      for (int l = 0; l <= z.order; l++) strides[l] = std::max<size_t>(strides[l], layer.stride[l]);
    }
    depth = 0;
    for (int l = 0; l <= z.order; l++) depth += (2 * l + 1) * strides[l];
    radial.grow(BLOCK * NR * most);
    angular.grow(BLOCK * M * most);
    basis.grow(BLOCK * MB * most);
    sent_back.grow(BLOCK * columns * most);
    slope.grow(BLOCK * z.basis * most);
    for (auto* array : {&bessel, &dbessel}) array->grow(z.basis * most);
    if (model.start.folds) {
      masks.grow(elements * most);
      masked.grow(NR * elements * most);
    }
    dbasis.grow(MB * most);
    for (auto* array : {&gathered, &dsent}) array->grow(columns * std::max<size_t>(most, BLOCK));
    dradial.grow(NR * most);
    dangular.grow(M * most);
    pairs.grow((1 + z.terms) * most);

    y.grow(M * BLOCK * W);
    inverse.grow(BLOCK);
    hidden.grow(BLOCK * z.hidden);
    active.grow(BLOCK * z.hidden);
    gates.grow(outputs_most * BLOCK * W);
    blocks.grow(model.products.rows.size() * BLOCK * W);
    inputs.grow(inputs_most * BLOCK * W);
    readout.grow(3 * BLOCK * W);
    dy.grow(M * BLOCK * W);
    moments.grow(BLOCK * depth);
    found.grow(MB * columns);
    sent.grow(BLOCK * padded<T>(columns));
    moments_of.resize(z.order + 1);
    for (size_t l = 0, at = 0; l < moments_of.size(); l++) {
      moments_of[l] = &moments[at];
      at += BLOCK * (2 * l + 1) * strides[l];
    }
  }
};

}  // namespace mdpot
