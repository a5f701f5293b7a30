// From the flat description to a `Model`. All folding is done in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "first_layer.h"

namespace mdpot {

// Reads the flat weights piece by piece.
class Reader {
 public:
  Reader(const double* data, int64_t size) : data_(data), left_(size) {}
  const double* take(int64_t n) {
    if (n > left_) throw std::invalid_argument("weights: fewer than the sizes ask for.");
    const double* found = data_;
    data_ += n;
    left_ -= n;
    return found;
  }
  int64_t left() const { return left_; }

 private:
  const double* data_;
  int64_t left_;
};

// A matrix [rows][columns] in double, of which copies are made as the kernels want them.
class Matrix {
 public:
  Matrix(int rows, int columns) : rows(rows), columns(columns), data_(size_t(rows) * columns) {}
  Matrix(const double* data, int rows, int columns)
      : rows(rows), columns(columns), data_(data, data + size_t(rows) * columns) {}
  double& operator()(int r, int c) { return data_[size_t(r) * columns + c]; }
  double operator()(int r, int c) const { return data_[size_t(r) * columns + c]; }
  Matrix transposed() const {
    Matrix out(columns, rows);
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++) out(c, r) = (*this)(r, c);
    return out;
  }
  // Columns, or rows, in groups of `group` that are each padded to `wide`.
  Matrix wider(int group, int wide) const {
    Matrix out(rows, columns / group * wide);
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++) out(r, c / group * wide + c % group) = (*this)(r, c);
    return out;
  }
  Matrix taller(int group, int tall) const { return transposed().wider(group, tall).transposed(); }
  template <class T> Array<T> as() const {
    Array<T> out(std::max<size_t>(data_.size(), 1));
    for (size_t k = 0; k < data_.size(); k++) out[k] = T(data_[k]);
    return out;
  }
  template <class T> Array<T> as_wide() const { return wider(columns, padded<T>(columns)).template as<T>(); }

  int rows, columns;

 private:
  std::vector<double> data_;
};

template <class T> Products<T> make_products(const mdpot_tide& tide) {
  const int n = (tide.order + 1) * (tide.order + 1) - 1;
  Products<T> out;
  int row = tide.order;
  for (int l1 = 1; l1 <= tide.order; l1++)
    for (int l2 = l1; l2 <= tide.order; l2++)
      for (int l3 = l2 - l1; l3 <= std::min(l1 + l2, int(tide.order)); l3++)
        if (l3 > 0 && (l1 + l2 + l3) % 2 == 0) {
          out.paths.push_back({l3, row, l2 <= l3});
          out.invariants += l2 <= l3;
          row += 2 * l3 + 1;
        }
  if (row != tide.product_rows) throw std::invalid_argument("product_rows: not those of this order.");
  out.rows.resize(row);
  for (int r = 0; r < row; r++)
    for (int a = 0; a < n; a++)
      for (int b = 0; b < n; b++)
        if (const double c = tide.products[(size_t(r) * n + a) * n + b]; std::fabs(c) > 1e-12)
          out.rows[r].push_back({a, b, T(c)});
  return out;
}

// How many pairs of an edge's harmonics and of what is sent couple to each degree (see `message_paths`).
inline std::vector<int> message_paths(const mdpot_tide& tide) {
  std::vector<int> paths(tide.order + 1);
  int rows = 0;
  for (int degree = 0; degree <= tide.order; degree++) {
    for (int sent = 0; sent <= tide.sent_order; sent++)
      for (int edge = std::abs(degree - sent); edge <= std::min(degree + sent, int(tide.order)); edge += 2)
        paths[degree]++;
    rows += paths[degree] * (2 * degree + 1);
  }
  if (rows != tide.message_rows) throw std::invalid_argument("message_rows: not those of these orders.");
  return paths;
}

template <class T> class ModelMaker {
 public:
  explicit ModelMaker(const mdpot_tide& tide) : tide_(tide), read_(tide.weights, tide.n_weights) {
    const int counts[] = {tide.n_elements, tide.layers,  tide.width,  tide.channels,    tide.n_radial,
                          tide.n_basis,    tide.hidden, tide.n_pair_terms};
    for (int n : counts)
      if (n < 1) throw std::invalid_argument("sizes: all must be at least 1.");
    if (tide.order < 1 || tide.order > 3) throw std::invalid_argument("order: must be from 1 to 3.");
    if (tide.sent_order < 1 || tide.sent_order > std::min(int(tide.order), 2))
      throw std::invalid_argument("sent_order: must be 1 or 2, and no larger than order.");
    const int components = (tide.order + 1) * (tide.order + 1), sent = (tide.sent_order + 1) * (tide.sent_order + 1);
    model_.sizes = {tide.n_elements,    tide.order,  tide.layers,           tide.n_radial,          tide.n_basis,
                    tide.n_pair_terms, tide.width, padded<T>(tide.width), padded<T>(tide.hidden), components, sent};
    paths_ = message_paths(tide);
  }

  Model<T> make() {
    model_.products = make_products<T>(tide_);
    model_.cutoff = T(tide_.cutoff);
    model_.frequency = 3.14159265358979323846 / tide_.cutoff;
    model_.cutoff_squared = tide_.cutoff * tide_.cutoff;
    model_.norm = T(tide_.norm);
    model_.scale = T(tide_.scale);
    model_.decay = T(tide_.pair_decay);
    model_.strength = T(tide_.wall_strength);
    const Matrix embedding(read_.take(int64_t(tide_.n_elements) * tide_.width), tide_.n_elements, tide_.width);
    const Matrix mark(read_.take(tide_.width), 1, tide_.width);
    model_.embedding = embedding.as_wide<T>();
    model_.mark = mark.as_wide<T>();
    const int radials = (tide_.order + 1) * tide_.n_radial;
    model_.radial = Matrix(read_.take(int64_t(radials) * tide_.n_basis), radials, tide_.n_basis).as<T>();
    for (int n = 0; n < tide_.layers; n++) model_.layers.push_back(layer(n));
    fold_first(tide_, tide_.weights, model_);
    readout();
    pairs();
    if (read_.left()) throw std::invalid_argument("weights: more than the sizes ask for.");
    return std::move(model_);
  }

 private:
  Matrix linear(int64_t rows, int64_t columns) { return Matrix(read_.take(rows * columns), rows, columns); }

  Layer<T> layer(int index) {
    const int W = tide_.width, C = tide_.channels, B = tide_.n_radial, order = tide_.order;
    Layer<T> out;
    out.first = index == 0;
    out.last = index == tide_.layers - 1;
    // Vectors of what is sent are of whole registers; where there are several components, each alone of 16 bytes.
    constexpr int grain = 16 / sizeof(T);
    out.channels = out.first ? padded<T>(C) : (C + grain - 1) / grain * grain;
    out.columns = out.first ? out.channels : padded<T>(model_.sizes.sent * out.channels);
    out.send_columns = C;
    const Matrix scalars = linear(C, W).transposed(), send_bias = linear(1, C);
    if (!out.first) out.send_bias = send_bias.template as_wide<T>();
    for (int degree = 0; !out.first && degree <= tide_.sent_order; degree++) {
      const Matrix send = degree ? linear(W, C) : scalars;
      out.send.push_back(send.taller(W, model_.sizes.width).template as_wide<T>());
      out.send_back.push_back(send.transposed().template as_wide<T>());
    }
    for (int degree = 0; degree <= order; degree++) {
      const int paths = out.first ? 1 : paths_[degree];
      const Matrix weights = linear(int64_t(paths) * B * C, W);
      const Matrix tall = weights.taller(C, out.channels);
      out.depth.push_back(tall.rows);
      out.stride.push_back(padded<T>(tall.rows));
      out.mix.push_back(tall.template as_wide<T>());
      out.mix_back.push_back(tall.transposed().taller(W, model_.sizes.width).template as_wide<T>());
    }
    mlp(out);
    return out;
  }

  void mlp(Layer<T>& out) {
    const int W = tide_.width, H = tide_.hidden, order = tide_.order;
    const int wide = model_.sizes.width;
    const int inputs = 2 + order + model_.products.invariants;
    out.inputs = out.first ? inputs - 1 : inputs;
    out.outputs = out.last ? 1 : 1 + order + int(model_.products.paths.size());
    const Matrix up = linear(H, int64_t(inputs) * W), up_bias = linear(1, H);
    const Matrix down = linear(int64_t(out.outputs) * W, H), down_bias = linear(1, int64_t(out.outputs) * W);
    // [part][width][hidden], and back [part][hidden][width]; the first layer's h is the bias's.
    Matrix in((out.inputs) * W, H);
    for (int k = 0; k < in.rows; k++)
      for (int n = 0; n < H; n++) in(k, n) = up(n, k + (out.first ? W : 0));
    out.up = in.taller(W, wide).template as_wide<T>();
    out.up_back = by_part(in, W);
    out.up_bias = up_bias.as_wide<T>();
    out.down = by_part(down, W);
    out.down_back = down.taller(W, wide).template as_wide<T>();
    out.down_bias = down_bias.wider(W, wide).template as<T>();
  }

  // [parts W][hidden] as [part][hidden][width].
  Array<T> by_part(const Matrix& from, int W) {
    const int parts = from.rows / W, H = from.columns;
    const int wide = model_.sizes.width, tall = model_.sizes.hidden;
    Matrix out(parts * tall, wide);
    for (int p = 0; p < parts; p++)
      for (int k = 0; k < W; k++)
        for (int n = 0; n < H; n++) out(p * tall + n, k) = from(p * W + k, n);
    return out.as<T>();
  }

  void readout() {
    const int W = tide_.width, wide = model_.sizes.width;
    const Matrix first = linear(W, W), bias = linear(1, W), last = linear(1, W);
    model_.readout = first.transposed().taller(W, wide).template as_wide<T>();
    model_.readout_back = first.taller(W, wide).template as_wide<T>();
    model_.readout_bias = bias.as_wide<T>();
    model_.readout_last = last.as_wide<T>();
    model_.readout_last_bias = T(*read_.take(1));
  }

  void pairs() {
    const int n = tide_.n_elements * tide_.n_elements, terms = tide_.n_pair_terms;
    const double* wall = read_.take(n);
    const double* pair = read_.take(int64_t(terms) * n);
    Matrix table(n, 1 + terms);
    for (int k = 0; k < n; k++) {
      table(k, 0) = wall[k];
      for (int t = 0; t < terms; t++) table(k, 1 + t) = pair[size_t(t) * n + k];
      for (int t = 0; t <= terms; t++) model_.has_pairs |= table(k, t) != 0;
    }
    model_.pairs = table.as<T>();
    model_.shift = Matrix(read_.take(tide_.n_elements), 1, tide_.n_elements).as<double>();
  }

  const mdpot_tide& tide_;
  Reader read_;
  std::vector<int> paths_;  // [degree]
  Model<T> model_{};
};

template <class T> Model<T> make_model(const mdpot_tide& tide) { return ModelMaker<T>(tide).make(); }

}  // namespace mdpot
