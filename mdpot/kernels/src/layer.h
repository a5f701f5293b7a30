// One layer of Tide on a block of atoms, forward and back; the equations are in `mdpot.models.tide`.
#pragma once

#include "moments.h"
#include "products.h"

namespace mdpot {

// One thread's view of an evaluation.
template <class T> struct Sweep {
  const Model<T>& model;
  const Structure& structure;
  State<T>& state;
  Scratch<T>& scratch;
  size_t most;  // padded number of neighbors for which the scratch has room
  int part;

  bool folds() const { return model.start.folds && !structure.marks; }
  size_t features() const { return size_t(BLOCK) * model.sizes.width; }
  T* h(size_t block) { return &state.h[block * features()]; }
  T* x(size_t block) { return &state.x[block * features() * (model.sizes.components - 1)]; }
  // The derivatives take the places of what they are by.
  T* dh(size_t block) { return h(block); }
  T* dx(size_t block) { return x(block); }
  int atoms(size_t block) const { return int(std::min<size_t>(BLOCK, structure.n_atoms - block * BLOCK)); }
  Saved<T> kept() { return {scratch.y.data(), scratch.inverse.data(), scratch.hidden.data(), scratch.gates.data()}; }
  const T* sent(int layer) { return layer ? state.sent[layer].data() : nullptr; }
};

// The scalars that all starts from: those of the element, and what a mark adds. Empty places get none.
template <class T> void embed(Sweep<T>& s, size_t block) {
  const int W = s.model.sizes.width;
  for (int a = 0; a < BLOCK; a++) {
    T* to = s.h(block) + a * W;
    if (a >= s.atoms(block)) {
      memset(to, 0, sizeof(T) * W);
      continue;
    }
    const size_t i = block * BLOCK + a;
    const T mark = s.structure.marks ? T(s.structure.marks[i]) : T(0);
    const T* of_element = &s.model.embedding[size_t(s.structure.species[i]) * W];
    for (int k = 0; k < W; k++) to[k] = of_element[k] + mark * s.model.mark[k];
  }
}

// The MLP's first biases; in the first layer with what h contributes.
template <class T> void start_hidden(Sweep<T>& s, const Layer<T>& layer, size_t block, T* hidden) {
  const int H = s.model.sizes.hidden;
  for (int a = 0; a < BLOCK; a++) {
    const size_t i = block * BLOCK + a;
    const bool real = a < s.atoms(block);
    const T* bias = layer.first ? &s.model.start.bias[real ? size_t(s.structure.species[i]) * H : 0]
                                : layer.up_bias.data();
    memcpy(hidden + a * H, bias, sizeof(T) * H);
    if (layer.first && real && s.structure.marks)
      for (int k = 0; k < H; k++) hidden[a * H + k] += T(s.structure.marks[i]) * s.model.start.bias_mark[k];
  }
}

// Mixed moments: y of all degrees from moments_of; and back.
template <class T> void mix(Sweep<T>& s, const Layer<T>& layer, T* y, bool back) {
  const int W = s.model.sizes.width;
  const bool folds = layer.first && s.folds();
  for (int l = 0; l <= s.model.sizes.order; l++) {
    const int depth = folds ? s.model.start.depth : layer.depth[l];
    const int stride = folds ? s.model.start.stride : layer.stride[l];
    const Array<T>& weights = folds ? (back ? s.model.start.mix_back[l] : s.model.start.mix[l])
                                    : (back ? layer.mix_back[l] : layer.mix[l]);
    T *moments = s.scratch.moments_of[l], *of_degree = y + l * l * s.features();
    const int rows = (2 * l + 1) * BLOCK;
    if (back)
      multiply<T>(rows, stride, W, {of_degree, W}, weights.data(), stride, moments, stride);
    else
      multiply<T>(rows, W, depth, {moments, stride}, weights.data(), W, of_degree, W);
  }
}

// From the neighbors to the output of the MLP, in kept.gates. h and x are those that entered the layer.
template <class T, int ORDER> void layer_forward(Sweep<T>& s, int index, size_t block, Saved<T> kept) {
  const Layer<T>& layer = s.model.layers[index];
  const Sizes& z = s.model.sizes;
  const int W = z.width, H = z.hidden, n = s.atoms(block);
  const size_t features = s.features();
  for (int a = 0; a < BLOCK; a++) {
    Neighbors<T> edges{};
    if (a < n) edges = s.state.neighbors(block * BLOCK + a);
    if (layer.first && s.folds())
      sum_elements<T, ORDER>(s.model, edges, a, s.most, s.scratch);
    else
      sum_sent<T, ORDER>(s.model, s.structure, layer, s.sent(index), edges, a, s.most, s.scratch, layer.last);
  }
  mix(s, layer, kept.y, false);
  if (!layer.first)
    for (size_t k = 0; k < features * (z.components - 1); k += LANES<T>)
      store<T>(kept.y + features + k, load<T>(kept.y + features + k) + load<T>(s.x(block) + k));
  normalize(z, kept.y, kept.inverse);
  T* inputs = s.scratch.inputs.data();
  if (!layer.first) {
    memcpy(inputs, s.h(block), sizeof(T) * features);
    inputs += features;
  }
  memcpy(inputs, kept.y, sizeof(T) * features);
  multiply_features(s.model, kept.y, s.scratch.blocks.data(), inputs + features);
  start_hidden(s, layer, block, kept.hidden);
  multiply<T>(BLOCK, H, W, {s.scratch.inputs.data(), W, 1, layer.inputs, int(features)}, layer.up.data(), H,
              kept.hidden, H, true);
  silu(kept.hidden, s.scratch.active.data(), BLOCK * H);
  for (int g = 0; g < layer.outputs; g++) {
    T* gate = kept.gates + g * features;
    for (int a = 0; a < BLOCK; a++) memcpy(gate + a * W, &layer.down_bias[g * W], sizeof(T) * W);
    multiply<T>(BLOCK, W, H, {s.scratch.active.data(), H}, &layer.down[size_t(g) * H * W], W, gate, W, true);
  }
}

// What atoms send to the next layer's sums, from their new h and x.
template <class T> void send(Sweep<T>& s, int next, size_t block) {
  const Layer<T>& layer = s.model.layers[next];
  const int W = s.model.sizes.width, C = layer.channels, wide = padded<T>(layer.send_columns);
  T* room = s.scratch.sent.data();
  for (int part = 0; part < s.model.sizes.sent; part++) {
    const T* from = part ? s.x(block) + (part - 1) * s.features() : s.h(block);
    multiply<T>(BLOCK, wide, W, {from, W}, layer.send[degree_of(part)].data(), wide, room, wide);
    for (int a = 0; a < s.atoms(block); a++) {
      T* to = &s.state.sent[next][(block * BLOCK + a) * layer.columns + part * C];
      for (int c = 0; c < layer.send_columns; c++)
        to[c] = room[a * wide + c] + (part ? T(0) : layer.send_bias[c]);
    }
  }
}

// The derivatives by h and x of the atoms get what came back, over all parts, for what they sent; the sums are left
// zero.
template <class T> void send_back(Sweep<T>& s, int next, size_t block) {
  const Layer<T>& layer = s.model.layers[next];
  const int W = s.model.sizes.width, C = layer.channels, columns = layer.columns;
  T* total = s.scratch.dsent.data();
  memset(total, 0, sizeof(T) * BLOCK * columns);
  for (int a = 0; a < s.atoms(block); a++) {
    const size_t i = block * BLOCK + a;
    for (Scattered<T>& copy : s.state.dsent[(next - 1) % 2]) {
      if (!copy.touched[i / Scattered<T>::PAGE]) continue;
      T* from = &copy.values[i * columns];
      for (int c = 0; c < columns; c += LANES<T>)
        store<T>(total + a * columns + c, load<T>(total + a * columns + c) + load<T>(from + c));
      memset(from, 0, sizeof(T) * columns);
    }
  }
  for (int part = 0; part < s.model.sizes.sent; part++)
    multiply<T>(BLOCK, W, layer.send_columns, {total + part * C, columns}, layer.send_back[degree_of(part)].data(), W,
                part ? s.dx(block) + (part - 1) * s.features() : s.dh(block), W, true);
}

// A layer's new h and x, of what `layer_forward` found.
template <class T> void update(Sweep<T>& s, size_t block, const Saved<T>& kept) {
  T* h = s.h(block);
  for (size_t k = 0; k < s.features(); k += LANES<T>) store<T>(h + k, load<T>(h + k) + load<T>(kept.gates + k));
  apply_gates(s.model, kept.y, s.scratch.blocks.data(), kept.gates, s.x(block));
}

// From the derivatives by what a layer returned (dh and, but for the last layer, dx) to those by what entered it, and
// by its neighbors' vectors. `fresh`: the scratch still holds what the forward sweep left of this block.
template <class T, int ORDER> void layer_backward(Sweep<T>& s, int index, size_t block, Saved<T> kept, bool fresh) {
  const Layer<T>& layer = s.model.layers[index];
  const Sizes& z = s.model.sizes;
  const int W = z.width, H = z.hidden, n = s.atoms(block);
  const size_t features = s.features();
  T *dh = s.dh(block), *blocks = s.scratch.blocks.data(), *dhidden = s.scratch.active.data();
  const T* dx = layer.last ? nullptr : s.dx(block);
  // By the MLP's outputs.
  T* dgates = s.scratch.gates.data();
  if (dx) {
    multiply_features<T>(s.model, kept.y, blocks, nullptr);
    memcpy(dgates, dh, sizeof(T) * features);
    gates_back(s.model, kept.y, blocks, dx, dgates);
  }
  multiply<T>(BLOCK, H, W, {dx ? dgates : dh, W, 1, layer.outputs, int(features)}, layer.down_back.data(), H, dhidden,
              H);
  silu_back(kept.hidden, dhidden, BLOCK * H);
  // By its inputs.
  T* dinputs = s.scratch.inputs.data();
  for (int p = 0; p < layer.inputs; p++)
    multiply<T>(BLOCK, W, H, {dhidden, H}, &layer.up_back[size_t(p) * H * W], W, dinputs + p * features, W);
  if (!layer.first) {
    for (size_t k = 0; k < features; k += LANES<T>) store<T>(dh + k, load<T>(dh + k) + load<T>(dinputs + k));
    dinputs += features;
  }
  T* dy = s.scratch.dy.data();
  memcpy(dy, dinputs, sizeof(T) * features);
  features_back(s.model, kept.y, blocks, dinputs + features, dx, kept.gates, dy);
  normalize_back(z, kept.y, kept.inverse, dy);
  if (!layer.first) memcpy(s.dx(block), dy + features, sizeof(T) * features * (z.components - 1));
  mix(s, layer, dy, true);
  for (int a = 0; a < n; a++) {
    const Neighbors<T> edges = s.state.neighbors(block * BLOCK + a);
    if (layer.first && s.folds())
      sum_elements_back<T, ORDER>(s.model, edges, a, s.most, s.scratch, !layer.last);
    else
      sum_sent_back<T, ORDER>(s.model, s.structure, layer, s.sent(index), edges, a, s.most, s.scratch, fresh,
                              !layer.last, layer.first ? nullptr : &s.state.dsent[(index - 1) % 2][s.part]);
  }
}

// Energies of the block's atoms, without pairs and reference, from the last layer's output; and dh.
template <class T> void read_out(Sweep<T>& s, size_t block, const Saved<T>& kept, double* energies) {
  const Model<T>& model = s.model;
  const int W = model.sizes.width;
  const size_t features = s.features();
  T *h = s.scratch.readout.data(), *hidden = h + features, *active = hidden + features;
  for (size_t k = 0; k < features; k += LANES<T>) store<T>(h + k, load<T>(s.h(block) + k) + load<T>(kept.gates + k));
  for (int a = 0; a < BLOCK; a++) memcpy(hidden + a * W, model.readout_bias.data(), sizeof(T) * W);
  multiply<T>(BLOCK, W, W, {h, W}, model.readout.data(), W, hidden, W, true);
  silu(hidden, active, int(features));
  for (int a = 0; a < BLOCK; a++) {
    Vector<T> by_feature = all<T>(0);
    for (int k = 0; k < W; k += LANES<T>) {
      by_feature += load<T>(active + a * W + k) * load<T>(&model.readout_last[k]);
      store<T>(active + a * W + k, model.scale * load<T>(&model.readout_last[k]));
    }
    if (a < s.atoms(block)) energies[block * BLOCK + a] = (sum<T>(by_feature) + model.readout_last_bias) * model.scale;
  }
  silu_back(hidden, active, int(features));
  multiply<T>(BLOCK, W, W, {active, W}, model.readout_back.data(), W, s.dh(block), W);
}

}  // namespace mdpot
