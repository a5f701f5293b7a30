// One layer of Tide on a block of atoms, of duals: forward, and back to the weights; see `layer.h`.
#pragma once

#include "dual_moments.h"
#include "dual_products.h"

namespace mdpot {

// One thread's view of a pass.
template <class T> struct DualSweep {
  const Model<T>& model;
  const Structure& structure;
  const Cotangents& cotangents;
  DualState<T>& state;
  DualScratch<T>& scratch;
  int part;

  size_t features() const { return size_t(DUAL_ROWS) * model.sizes.width; }
  T* h(int layer, size_t block) { return &state.h[layer][block * features()]; }
  T* x(int layer, size_t block) { return &state.x[layer][block * features() * (model.sizes.components - 1)]; }
  T* dh(size_t block) { return &state.dh[block * features()]; }
  T* dx(size_t block) { return &state.dx[block * features() * (model.sizes.components - 1)]; }
  int atoms(size_t block) const { return int(std::min<size_t>(BLOCK, structure.n_atoms - block * BLOCK)); }
  size_t species(size_t block, int a) const { return structure.species[block * BLOCK + a]; }
  T mark(size_t block, int a) const { return structure.marks ? T(structure.marks[block * BLOCK + a]) : T(0); }
  Kept<T> kept(int layer, size_t block) {
    const KeptSizes<T>& sizes = state.sizes[layer];
    const bool last = layer + 1 == int(model.layers.size());
    return sizes.at(last ? scratch.kept.data() : &state.kept[layer][block * sizes.total]);
  }
};

template <class T> void dual_embed(DualSweep<T>& s, size_t block) {
  const int W = s.model.sizes.width;
  T* h = s.h(0, block);
  memset(h, 0, sizeof(T) * s.features());
  for (int a = 0; a < s.atoms(block); a++) {
    add_to(W, &s.model.embedding[s.species(block, a) * W], T(1), h + a * W);
    add_to(W, s.model.mark.data(), s.mark(block, a), h + a * W);
  }
}

template <class T> void dual_embed_back(DualSweep<T>& s, size_t block) {
  const int W = s.model.sizes.width;
  for (int a = 0; a < s.atoms(block); a++) {
    const T* dh = s.dh(block) + (BLOCK + a) * W;
    add_to(W, dh, T(1), s.scratch.gradient.embedding + s.species(block, a) * W);
    add_to(W, dh, s.mark(block, a), s.scratch.gradient.mark);
  }
}

// The MLP's first biases; in the first layer with what h contributes.
template <class T> void dual_start_hidden(DualSweep<T>& s, const Layer<T>& layer, size_t block, T* hidden) {
  const int H = s.model.sizes.hidden;
  start_rows(H, hidden, [&](int a) {
    if (!layer.first) return layer.up_bias.data();
    return &s.model.start.bias[a < s.atoms(block) ? s.species(block, a) * H : 0];
  });
  if (layer.first && s.structure.marks)
    for (int a = 0; a < s.atoms(block); a++)
      add_to(H, s.model.start.bias_mark.data(), s.mark(block, a), hidden + a * H);
}

template <class T> void dual_start_hidden_back(DualSweep<T>& s, const Layer<T>& layer, LayerGradient<T>& gradient,
                                               size_t block, const T* dhidden) {
  const int H = s.model.sizes.hidden;
  if (!layer.first) return add_rows(H, dhidden, gradient.up_bias);
  for (int a = 0; a < s.atoms(block); a++) {
    const T* d = dhidden + (BLOCK + a) * H;
    add_to(H, d, T(1), s.scratch.gradient.bias + s.species(block, a) * H);
    if (s.structure.marks) add_to(H, d, s.mark(block, a), s.scratch.gradient.bias_mark);
  }
}

// From the neighbors to the output of the MLP, in kept.gates.
template <class T, int ORDER> void dual_forward(DualSweep<T>& s, int index, size_t block, const Kept<T>& kept) {
  const Layer<T>& layer = s.model.layers[index];
  const Sizes& z = s.model.sizes;
  const int W = z.width, H = z.hidden, features = int(s.features());
  const T* sent = layer.first ? nullptr : s.state.sent[index].data();
  for (int a = 0; a < BLOCK; a++) {
    Neighbors<T> edges{};
    if (a < s.atoms(block)) edges = s.state.edges.neighbors(block * BLOCK + a);
    sum_neighbors<T, ORDER>(s.model, s.structure, layer, sent, edges, a, kept, s.scratch);
  }
  for (int l = 0; l <= z.order; l++)
    multiply<T>((2 * l + 1) * DUAL_ROWS, W, layer.depth[l], {kept.moments[l], layer.stride[l]}, layer.mix[l].data(), W,
                kept.y + l * l * features, W);
  T* inputs = kept.inputs;
  if (!layer.first) {
    add_to(features * (z.components - 1), s.x(index, block), T(1), kept.y + features);
    memcpy(inputs, s.h(index, block), sizeof(T) * features);
    inputs += features;
  }
  dual_normalize(z, kept.y, kept.factor);
  memcpy(inputs, kept.y, sizeof(T) * features);
  multiply_features<T, ORDER, Dual<T>>(BLOCK * W, kept.y, s.scratch.blocks.data(), inputs + features);
  dual_start_hidden(s, layer, block, kept.hidden);
  multiply<T>(DUAL_ROWS, H, W, {kept.inputs, W, 1, layer.inputs, features}, layer.up.data(), H, kept.hidden, H, true);
  T* active = s.scratch.active.data();
  dual_silu(kept.hidden, active, BLOCK * H);
  for (int g = 0; g < layer.outputs; g++) {
    T* gate = kept.gates + g * features;
    start_rows(W, gate, [&](int) { return &layer.down_bias[g * W]; });
    multiply<T>(DUAL_ROWS, W, H, {active, H}, &layer.down[size_t(g) * H * W], W, gate, W, true);
  }
}

// The next layer's h and x, of what `dual_forward` found.
template <class T, int ORDER> void dual_update(DualSweep<T>& s, int index, size_t block, const Kept<T>& kept) {
  T* h = s.h(index + 1, block);
  memcpy(h, s.h(index, block), sizeof(T) * s.features());
  add_to(int(s.features()), kept.gates, T(1), h);
  const int run = BLOCK * s.model.sizes.width;
  apply_gates<T, ORDER, Dual<T>>(run, kept.y, s.scratch.blocks.data(), kept.gates, s.x(index + 1, block));
}

// What atoms send to the next layer's sums, from its h and x.
template <class T> void dual_send(DualSweep<T>& s, int next, size_t block) {
  const Layer<T>& layer = s.model.layers[next];
  const int W = s.model.sizes.width, C = layer.channels, wide = padded<T>(layer.send_columns);
  T* room = s.scratch.sent.data();
  for (int part = 0; part < s.model.sizes.sent; part++) {
    const T* from = part ? s.x(next, block) + (part - 1) * s.features() : s.h(next, block);
    multiply<T>(DUAL_ROWS, wide, W, {from, W}, layer.send[degree_of(part)].data(), wide, room, wide);
    if (!part)
      for (int a = 0; a < BLOCK; a++) add_to(wide, layer.send_bias.data(), T(1), room + a * wide);
    for (int a = 0; a < s.atoms(block); a++)
      for (int half = 0; half < 2; half++)
        memcpy(&s.state.sent[next][((block * BLOCK + a) * 2 + half) * layer.columns + part * C],
               room + (half * BLOCK + a) * wide, sizeof(T) * layer.send_columns);
  }
}

// The derivatives by h and x, and by the weights of what is sent, from what came back, over all parts, for what the
// atoms sent; the sums are left zero.
template <class T> void dual_send_back(DualSweep<T>& s, int next, size_t block) {
  const Layer<T>& layer = s.model.layers[next];
  LayerGradient<T>& gradient = s.scratch.gradient.layers[next];
  const int W = s.model.sizes.width, C = layer.channels, columns = layer.columns, n = layer.send_columns;
  const int wide = padded<T>(n);
  T *total = s.scratch.sent.data(), *room = total + DUAL_ROWS * columns;
  memset(total, 0, sizeof(T) * DUAL_ROWS * columns);
  for (int a = 0; a < s.atoms(block); a++) {
    const size_t i = block * BLOCK + a;
    for (Scattered<T>& copy : s.state.dsent[(next - 1) % 2]) {
      if (!copy.touched[i / Scattered<T>::PAGE]) continue;
      T* from = &copy.values[2 * i * columns];
      add_to(columns, from, T(1), total + a * columns);
      add_to(columns, from + columns, T(1), total + (BLOCK + a) * columns);
      memset(from, 0, sizeof(T) * 2 * columns);
    }
  }
  memset(room, 0, sizeof(T) * DUAL_ROWS * wide);
  for (int part = 0; part < s.model.sizes.sent; part++) {
    const int degree = degree_of(part);
    const T* of = part ? s.x(next, block) + (part - 1) * s.features() : s.h(next, block);
    T* to = part ? s.dx(block) + (part - 1) * s.features() : s.dh(block);
    for (int a = 0; a < DUAL_ROWS; a++) memcpy(room + a * wide, total + a * columns + part * C, sizeof(T) * n);
    multiply<T>(DUAL_ROWS, W, n, {room, wide}, layer.send_back[degree].data(), W, to, W, true);
    add_products(W, wide, of, W, room, wide, gradient.send[degree]);
    if (!part) add_rows(wide, room, gradient.send_bias);
  }
}

// From the derivatives by what a layer returned (dh and, but for the last layer, dx) to those by what entered it.
template <class T, int ORDER> void dual_backward(DualSweep<T>& s, int index, size_t block, const Kept<T>& kept) {
  const Layer<T>& layer = s.model.layers[index];
  LayerGradient<T>& gradient = s.scratch.gradient.layers[index];
  const Sizes& z = s.model.sizes;
  const int W = z.width, H = z.hidden, features = int(s.features());
  const T* dx = layer.last ? nullptr : s.dx(block);
  T *dh = s.dh(block), *blocks = s.scratch.blocks.data(), *active = s.scratch.active.data();
  // By the MLP's outputs.
  T* dgates = s.scratch.dgates.data();
  memcpy(dgates, dh, sizeof(T) * features);
  if (dx) {
    multiply_features<T, ORDER, Dual<T>>(BLOCK * W, kept.y, blocks, nullptr);
    gates_back<T, ORDER, Dual<T>>(BLOCK * W, kept.y, blocks, dx, dgates);
  }
  dual_silu(kept.hidden, active, BLOCK * H);
  for (int g = 0; g < layer.outputs; g++) {
    add_products(H, W, active, H, dgates + g * features, W, gradient.down + size_t(g) * H * W);
    add_rows(W, dgates + g * features, gradient.down_bias + g * W);
  }
  T* dhidden = active;
  multiply<T>(DUAL_ROWS, H, W, {dgates, W, 1, layer.outputs, features}, layer.down_back.data(), H, dhidden, H);
  dual_silu_back(kept.hidden, dhidden, BLOCK * H);
  // By its inputs.
  T* dinputs = s.scratch.dinputs.data();
  for (int p = 0; p < layer.inputs; p++) {
    add_products(W, H, kept.inputs + p * features, W, dhidden, H, gradient.up + size_t(p) * W * H);
    multiply<T>(DUAL_ROWS, W, H, {dhidden, H}, &layer.up_back[size_t(p) * H * W], W, dinputs + p * features, W);
  }
  dual_start_hidden_back(s, layer, gradient, block, dhidden);
  if (!layer.first) {
    add_to(features, dinputs, T(1), dh);
    dinputs += features;
  }
  T* dy = s.scratch.dy.data();
  memcpy(dy, dinputs, sizeof(T) * features);
  if (dx)
    features_back<T, ORDER, true, Dual<T>>(BLOCK * W, kept.y, blocks, dinputs + features, dx, kept.gates, dy);
  else
    features_back<T, ORDER, false, Dual<T>>(BLOCK * W, kept.y, blocks, dinputs + features, dx, kept.gates, dy);
  dual_normalize_back(z, kept.y, kept.factor, dy);
  if (!layer.first) memcpy(s.dx(block), dy + features, sizeof(T) * features * (z.components - 1));
  for (int l = 0; l <= z.order; l++) {
    const int stride = layer.stride[l];
    T *moments = kept.moments[l], *of_degree = dy + l * l * features;
    for (int m = 0; m <= 2 * l; m++)
      add_products(layer.depth[l], W, moments + m * DUAL_ROWS * stride, stride, of_degree + m * features, W,
                   gradient.mix[l]);
    multiply<T>((2 * l + 1) * DUAL_ROWS, stride, W, {of_degree, W}, layer.mix_back[l].data(), stride, moments, stride);
  }
  Scattered<T>* dsent = layer.first ? nullptr : &s.state.dsent[(index - 1) % 2][s.part];
  for (int a = 0; a < s.atoms(block); a++)
    sum_neighbors_back<T, ORDER>(s.model, s.structure, layer, s.state.edges.neighbors(block * BLOCK + a), a, kept,
                                 s.scratch, dsent);
}

// dh of the last layer, from the derivatives by the energies of the block's atoms: 1, and along the direction those of
// the loss.
template <class T> void dual_read_out(DualSweep<T>& s, size_t block, const Kept<T>& kept) {
  const Model<T>& model = s.model;
  Gradient<T>& gradient = s.scratch.gradient;
  const int W = model.sizes.width, features = int(s.features());
  T *h = s.scratch.readout.data(), *hidden = h + features, *active = hidden + features;
  memcpy(h, s.h(int(model.layers.size()) - 1, block), sizeof(T) * features);
  add_to(features, kept.gates, T(1), h);
  start_rows(W, hidden, [&](int) { return model.readout_bias.data(); });
  multiply<T>(DUAL_ROWS, W, W, {h, W}, model.readout.data(), W, hidden, W, true);
  dual_silu(hidden, active, BLOCK * W);
  T* dactive = active;
  for (int a = 0; a < BLOCK; a++) {
    const bool real = a < s.atoms(block);
    const T one = real ? model.scale : T(0);
    const T by_energy = real ? model.scale * T(s.cotangents.energies[block * BLOCK + a]) : T(0);
    add_to(W, active + a * W, by_energy, gradient.readout_last);
    add_to(W, active + (BLOCK + a) * W, one, gradient.readout_last);
    *gradient.readout_last_bias += by_energy;
    memset(dactive + a * W, 0, sizeof(T) * W);
    memset(dactive + (BLOCK + a) * W, 0, sizeof(T) * W);
    add_to(W, model.readout_last.data(), one, dactive + a * W);
    add_to(W, model.readout_last.data(), by_energy, dactive + (BLOCK + a) * W);
  }
  dual_silu_back(hidden, dactive, BLOCK * W);
  add_products(W, W, h, W, dactive, W, gradient.readout);
  add_rows(W, dactive, gradient.readout_bias);
  multiply<T>(DUAL_ROWS, W, W, {dactive, W}, model.readout_back.data(), W, s.dh(block), W);
}

}  // namespace mdpot
