// Weights that change: new ones into a model that is there, and derivatives by a model's arrays back to the flat weights
// of an `mdpot_tide`.
#pragma once

#include <memory>
#include <numeric>
#include <stdexcept>

#include "gradient_workspace.h"
#include "model_inl.h"

namespace mdpot {

// From derivatives by the tables of the first layer to those by the weights that they are made of; added.
template <class T>
void unfold_first(const mdpot_tide& tide, const Model<T>& model, const Gradient<T>& by, const double* weights,
                  double* to) {
  const int W = tide.width, C = tide.channels, H = tide.hidden, columns = model.layers[0].columns;
  const FirstWeights<const double> of(tide, model.layers[0].inputs, weights);
  const FirstWeights<double> d(tide, model.layers[0].inputs, to);
  for (int z = 0; z < tide.n_elements; z++) {
    const double* element = of.embedding + z * W;
    apply_rows_back(H, W, by.bias + size_t(z) * model.sizes.hidden, of.up, element, of.up_row, d.up, d.up_bias,
                    d.embedding + z * W);
    apply_rows_back(C, W, by.sent + size_t(z) * columns, of.send, element, W, d.send, d.send_bias,
                    d.embedding + z * W);
  }
  apply_rows_back(H, W, by.bias_mark, of.up, of.mark, of.up_row, d.up, nullptr, d.mark);
  apply_rows_back(C, W, by.sent_mark, of.send, of.mark, W, d.send, nullptr, d.mark);
}

// A model's arrays are copies of the weights, transposed and padded. Made from the numbers 1, 2, 3 … in place of the
// weights, they say which weight every element is; 0: padding.
template <class T> class WeightPlaces {
 public:
  explicit WeightPlaces(const mdpot_tide& tide) : tide_(tide) {
    if (sizeof(T) == 4 && tide.n_weights >= 1 << 24) throw std::invalid_argument("weights: too many to be trained.");
    std::vector<double> numbers(tide.n_weights);
    std::iota(numbers.begin(), numbers.end(), 1.0);
    tide_.weights = numbers.data();
    places_ = make_model<T>(tide_);
    tide_.weights = nullptr;
  }

  // New weights of the network; pairs and reference energies stay. Raises nothing.
  void update(Model<T>& model, const double* weights) const {
    const auto set = [&](Array<T>& to, const Array<T>& places) {
      for (size_t k = 0; k < places.size(); k++) {
        const size_t place = size_t(places[k]);
        to[k] = place ? T(weights[place - 1]) : T(0);
      }
    };
    const Model<T>& p = places_;
    set(model.embedding, p.embedding);
    set(model.mark, p.mark);
    set(model.radial, p.radial);
    for (size_t n = 0; n < model.layers.size(); n++) {
      Layer<T>& to = model.layers[n];
      const Layer<T>& from = p.layers[n];
      for (size_t l = 0; l < to.mix.size(); l++) {
        set(to.mix[l], from.mix[l]);
        set(to.mix_back[l], from.mix_back[l]);
      }
      for (size_t l = 0; l < to.send.size(); l++) {
        set(to.send[l], from.send[l]);
        set(to.send_back[l], from.send_back[l]);
      }
      for (auto array : {&Layer<T>::up, &Layer<T>::up_back, &Layer<T>::up_bias, &Layer<T>::down, &Layer<T>::down_back,
                         &Layer<T>::down_bias, &Layer<T>::send_bias})
        set(to.*array, from.*array);
    }
    set(model.readout, p.readout);
    set(model.readout_back, p.readout_back);
    set(model.readout_bias, p.readout_bias);
    set(model.readout_last, p.readout_last);
    model.readout_last_bias = T(weights[size_t(p.readout_last_bias) - 1]);
    fold_first(tide_, weights, model);
  }

  // Derivatives by the flat weights [n_weights]; those by pairs and reference energies are zero.
  void collect(const Gradient<T>& from, const double* weights, double* to) const {
    memset(to, 0, sizeof(double) * tide_.n_weights);
    const auto add = [&](const T* gradient, const Array<T>& places) {
      for (size_t k = 0; k < places.size(); k++)
        if (const size_t place = size_t(places[k])) to[place - 1] += double(gradient[k]);
    };
    const Model<T>& p = places_;
    add(from.embedding, p.embedding);
    add(from.mark, p.mark);
    for (size_t k = 0; k < p.radial.size(); k++)
      for (int q = 0; q < LANES<T>; q++) to[size_t(p.radial[k]) - 1] += double(from.radial[k * LANES<T> + q]);
    for (size_t n = 0; n < from.layers.size(); n++) {
      const LayerGradient<T>& layer = from.layers[n];
      const Layer<T>& places = p.layers[n];
      for (size_t l = 0; l < layer.mix.size(); l++) add(layer.mix[l], places.mix[l]);
      add(layer.up, places.up);
      if (!places.first) add(layer.up_bias, places.up_bias);
      add(layer.down, places.down);
      add(layer.down_bias, places.down_bias);
      for (size_t l = 0; l < layer.send.size(); l++) add(layer.send[l], places.send[l]);
      add(layer.send_bias, places.send_bias);
    }
    add(from.readout, p.readout);
    add(from.readout_bias, p.readout_bias);
    add(from.readout_last, p.readout_last);
    to[size_t(p.readout_last_bias) - 1] += double(*from.readout_last_bias);
    unfold_first(tide_, p, from, weights, to);
  }

 private:
  mdpot_tide tide_;
  Model<T> places_;
};

}  // namespace mdpot
