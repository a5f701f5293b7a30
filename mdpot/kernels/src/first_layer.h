// What the first layer sends, and adds to the MLP's first bias, depends on the species and the mark alone: tables of it
// from the weights, the mixing weights with them folded in, and derivatives by the tables back to the weights.
#pragma once

#include "model.h"

namespace mdpot {

// The weights that the tables are made of, inside the flat ones of an `mdpot_tide`; see there.
template <class U> struct FirstWeights {
  U *embedding, *mark, *send, *send_bias, *mix, *up, *up_bias;
  int up_row;  // of `up`, a row of which begins with what multiplies h

  FirstWeights(const mdpot_tide& tide, int inputs, U* weights) : up_row((inputs + 1) * tide.width) {
    const int64_t W = tide.width, C = tide.channels, radials = (tide.order + 1) * tide.n_radial;
    embedding = weights;
    mark = embedding + tide.n_elements * W;
    send = mark + W + radials * tide.n_basis;
    send_bias = send + C * W;
    mix = send_bias + C;
    up = mix + radials * C * W;
    up_bias = up + int64_t(tide.hidden) * up_row;
  }
};

// to[n] = bias[n] + Σ weights[n row + k] from[k], n < rows and k < depth; without a bias, of zero.
template <class T>
void apply_rows(int rows, int depth, const double* weights, int row, const double* bias, const double* from, T* to) {
  for (int n = 0; n < rows; n++) {
    double sum = bias ? bias[n] : 0;
    for (int k = 0; k < depth; k++) sum += weights[int64_t(n) * row + k] * from[k];
    to[n] = T(sum);
  }
}

// The derivatives, of those by `to`, by all that it is made of; added.
template <class T>
void apply_rows_back(int rows, int depth, const T* dto, const double* weights, const double* from, int row,
                     double* dweights, double* dbias, double* dfrom) {
  for (int n = 0; n < rows; n++) {
    const double d = dto[n];
    if (dbias) dbias[n] += d;
    for (int k = 0; k < depth; k++) {
      dweights[int64_t(n) * row + k] += d * from[k];
      dfrom[k] += d * weights[int64_t(n) * row + k];
    }
  }
}

// mix and mix_back of one degree: moments are then summed for each element instead of each channel.
template <class T> void fold_mix(const mdpot_tide& tide, const double* sent, const double* mix, int degree, Model<T>& model) {
  const int W = tide.width, C = tide.channels, wide = model.sizes.width, stride = model.start.stride;
  T *forward = model.start.mix[degree].data(), *back = model.start.mix_back[degree].data();
  for (int b = 0; b < tide.n_radial; b++)
    for (int z = 0; z < tide.n_elements; z++)
      for (int k = 0; k < W; k++) {
        double sum = 0;
        for (int c = 0; c < C; c++) sum += sent[z * C + c] * mix[(b * C + c) * W + k];
        const int row = b * tide.n_elements + z;
        forward[size_t(row) * wide + k] = back[size_t(k) * stride + row] = T(sum);
      }
}

// The tables of a model whose first layer is there, from flat weights.
template <class T> void fold_first(const mdpot_tide& tide, const double* weights, Model<T>& model) {
  const int W = tide.width, C = tide.channels, H = tide.hidden, elements = tide.n_elements;
  const int wide = model.sizes.width, tall = model.sizes.hidden, columns = model.layers[0].columns;
  const FirstWeights<const double> of(tide, model.layers[0].inputs, weights);
  FirstLayer<T>& start = model.start;
  start.bias.grow(size_t(elements) * tall);
  start.bias_mark.grow(tall);
  start.sent.grow(size_t(elements) * columns);
  start.sent_mark.grow(columns);
  std::vector<double> sent(size_t(elements) * C);
  for (int z = 0; z < elements; z++) {
    apply_rows(H, W, of.up, of.up_row, of.up_bias, of.embedding + z * W, &start.bias[size_t(z) * tall]);
    apply_rows(C, W, of.send, W, of.send_bias, of.embedding + z * W, &sent[size_t(z) * C]);
    for (int c = 0; c < C; c++) start.sent[size_t(z) * columns + c] = T(sent[size_t(z) * C + c]);
  }
  apply_rows(H, W, of.up, of.up_row, nullptr, of.mark, start.bias_mark.data());
  apply_rows(C, W, of.send, W, nullptr, of.mark, start.sent_mark.data());
  start.folds = 2 * elements <= C;
  start.depth = tide.n_radial * elements;
  start.stride = padded<T>(start.depth);
  if (!start.folds) return;
  start.mix.resize(tide.order + 1);
  start.mix_back.resize(tide.order + 1);
  for (int degree = 0; degree <= tide.order; degree++) {
    start.mix[degree].grow(size_t(start.depth) * wide);
    start.mix_back[degree].grow(size_t(wide) * start.stride);
    fold_mix(tide, sent.data(), of.mix + int64_t(degree) * tide.n_radial * C * W, degree, model);
  }
}

}  // namespace mdpot
