// What the pass of dual numbers writes: of every atom what its backward sweeps read, scratch of each thread for one
// block, and derivatives by the weights.
#pragma once

#include "dual.h"
#include "workspace.h"

namespace mdpot {

// Derivatives of the loss by the weights, in the layout of the `Model`'s arrays of the same names; one thread's.
template <class T> struct LayerGradient {
  std::vector<T*> mix, send;
  T *up, *up_bias, *down, *down_bias, *send_bias;
};

template <class T> struct Gradient {
  T *embedding, *mark, *radial;                  // radial: [weight][LANES], to be summed over the lanes
  T *sent, *sent_mark, *bias, *bias_mark;        // of the `FirstLayer`
  T *readout, *readout_bias, *readout_last, *readout_last_bias;
  std::vector<LayerGradient<T>> layers;
  Array<T> all;
  size_t size = 0;

  // Lays it out for a model, all of it zero.
  void start(const Model<T>& model) {
    if (!size) {
      place(model);  // to know the size
      all.grow(size);
      place(model);
    }
    memset(all.data(), 0, sizeof(T) * size);
  }

  void add(const Gradient& other) {
    for (size_t k = 0; k < size; k += LANES<T>) store<T>(&all[k], load<T>(&all[k]) + load<T>(&other.all[k]));
  }

 private:
  T* take(size_t n) {
    T* at = all.data() ? all.data() + size : nullptr;
    size += (n + LANES<T> - 1) / LANES<T> * LANES<T>;
    return at;
  }

  void place(const Model<T>& model) {
    const Sizes& z = model.sizes;
    const size_t W = z.width, H = z.hidden, E = z.elements, columns = model.layers[0].columns;
    size = 0;
    embedding = take(E * W);
    mark = take(W);
    radial = take(size_t(z.order + 1) * z.radial * z.basis * LANES<T>);
    sent = take(E * columns);
    sent_mark = take(columns);
    bias = take(E * H);
    bias_mark = take(H);
    readout = take(W * W);
    readout_bias = take(W);
    readout_last = take(W);
    readout_last_bias = take(1);
    layers.resize(model.layers.size());
    for (size_t n = 0; n < layers.size(); n++) {
      const Layer<T>& layer = model.layers[n];
      LayerGradient<T>& to = layers[n];
      to.mix.clear();
      for (int depth : layer.depth) to.mix.push_back(take(depth * W));
      to.up = take(layer.inputs * W * H);
      to.up_bias = take(H);
      to.down = take(layer.outputs * H * W);
      to.down_bias = take(layer.outputs * W);
      const size_t wide = layer.first ? 0 : padded<T>(layer.send_columns);
      to.send.clear();
      for (size_t l = 0; l < layer.send.size(); l++) to.send.push_back(take(W * wide));
      to.send_bias = take(wide);
    }
  }
};

// Of a layer and a block of atoms, all of it dual: [..][2][BLOCK][..].
template <class T> struct Kept {
  T* y;               // [components][..][width], normalized from l = 1 on
  T* factor;          // the factor that normalized it
  T* hidden;          // [hidden], before the activation
  T* gates;           // [outputs][..][width]
  T* inputs;          // [inputs][..][width], of the MLP
  T* sums;            // [BLOCK][2][components n_basis][columns], see `sum_neighbors`
  std::vector<T*> moments;  // [degree]: [2 degree + 1][..][stride]; in the end derivatives by them
};

// Where a block's `Kept` of a layer lies in an array.
template <class T> struct KeptSizes {
  size_t y, factor, hidden, gates, inputs, sums, total;
  std::vector<size_t> moments;

  KeptSizes(const Sizes& z, const Layer<T>& layer) {
    const size_t rows = DUAL_ROWS, W = z.width;
    y = z.components * rows * W;
    factor = padded<T>(DUAL_ROWS);
    hidden = rows * z.hidden;
    gates = layer.outputs * rows * W;
    inputs = layer.inputs * rows * W;
    sums = rows * z.components * z.basis * layer.columns;
    total = y + factor + hidden + gates + inputs + sums;
    for (int l = 0; l <= z.order; l++) {
      moments.push_back((2 * l + 1) * rows * layer.stride[l]);
      total += moments.back();
    }
  }

  Kept<T> at(T* start) const {
    const auto take = [&](size_t n) { return (start += n) - n; };
    Kept<T> out{take(y), take(factor), take(hidden), take(gates), take(inputs), take(sums), {}};
    for (size_t n : moments) out.moments.push_back(take(n));
    return out;
  }
};

template <class T> struct DualState {
  State<T> edges;                 // only what is of neighbors; gx, gy, gz: derivatives of the vectors
  std::vector<Array<T>> kept;     // [layer but the last], by blocks
  std::vector<Array<T>> h, x;     // [layer], what enters it: by blocks, [..][width] and [components - 1][..][width]
  std::vector<Array<T>> sent;     // [layer], empty for the first: [atoms][2][columns]
  Array<T> dh, dx;
  std::vector<Scattered<T>> dsent[2];  // as in `State`
  std::vector<KeptSizes<T>> sizes;     // [layer]

  void grow(const Model<T>& model, size_t n, size_t candidates, int parts) {
    const Sizes& z = model.sizes;
    const size_t layers = model.layers.size();
    edges.grow_neighbors(n, candidates);
    const size_t features = edges.blocks * DUAL_ROWS * z.width;
    for (auto* list : {&kept, &h, &x, &sent}) list->resize(layers);
    sizes.clear();
    size_t columns = 0;
    for (size_t l = 0; l < layers; l++) {
      sizes.emplace_back(z, model.layers[l]);
      h[l].grow(features);
      if (l > 0) x[l].grow(features * (z.components - 1));
      if (l > 0) sent[l].grow(n * 2 * model.layers[l].columns);
      if (l > 0) columns = std::max<size_t>(columns, 2 * model.layers[l].columns);
      if (l + 1 < layers) kept[l].grow(edges.blocks * sizes[l].total);
    }
    dh.grow(features);
    dx.grow(features * (z.components - 1));
    for (size_t k = 0; k < 2; k++) {
      if (dsent[k].size() < size_t(parts)) dsent[k].resize(parts);
      for (auto& copy : dsent[k]) copy.grow(layers > k + 1 ? n : 0, int(columns));
    }
  }
};

// One thread's.
template <class T> struct DualScratch {
  size_t most = 0;
  Array<T> kept;  // the last layer's
  Array<T> bessel, slope, angular, basis, gathered, found, dsums, dsent;       // of one atom
  Array<T> blocks, active, dgates, dinputs, dy, sent, readout;  // of a block
  Gradient<T> gradient;

  void grow(const Model<T>& model, size_t most) {
    const Sizes& z = model.sizes;
    const size_t W = z.width, rows = DUAL_ROWS, M = z.components, MK = M * z.basis;
    size_t columns = 0, inputs = 0, outputs = 0;
    for (const Layer<T>& layer : model.layers) {
      columns = std::max<size_t>(columns, layer.columns);
      inputs = std::max<size_t>(inputs, layer.inputs);
      outputs = std::max<size_t>(outputs, layer.outputs);
    }
    kept.grow(KeptSizes<T>(z, model.layers.back()).total);
    for (auto* array : {&bessel, &slope}) array->grow(z.basis * most);
    angular.grow(2 * M * most);
    basis.grow(2 * MK * most);
    for (auto* array : {&gathered, &dsent}) array->grow(2 * most * columns);
    found.grow(2 * M * z.radial * columns);
    dsums.grow(2 * MK * columns);
    blocks.grow(model.products.rows.size() * rows * W);
    active.grow(rows * z.hidden);
    dgates.grow(outputs * rows * W);
    dinputs.grow(inputs * rows * W);
    dy.grow(M * rows * W);
    sent.grow(rows * padded<T>(columns) * 2);
    readout.grow(3 * rows * W);
  }
};

}  // namespace mdpot
