// A Tide potential as the kernels read it: sizes, sparse tables of the angular products, and weights, padded with zeros
// to whole vectors and ordered for the products that use them.
#pragma once

#include <vector>

#include "array.h"
#include "mdpot_kernels.h"
#include "vector.h"

namespace mdpot {

// Atoms in a block, whose intermediate results stay in the cache.
constexpr int BLOCK = 12;

template <class T> struct Term {  // of a sparse sum: a coefficient and what it multiplies
  int first, second;
  T coefficient;
};

// Products of the components of y, counted from l = 1 (see `product_table`): rows of terms. The first `order` rows are
// the invariants y_l · y_l, then follow those of each path.
struct Path {
  int degree, row;
  bool invariant;  // whether its product with y enters the MLP
};

template <class T> struct Products {
  std::vector<std::vector<Term<T>>> rows;
  std::vector<Path> paths;
  int invariants = 0;  // how many paths have `invariant`
};

// The degree of a component, counted by l and m.
inline int degree_of(int component) { return component < 1 ? 0 : component < 4 ? 1 : component < 9 ? 2 : 3; }

struct Sizes {
  int elements, order, layers, radial, basis, terms;
  int features;       // of an atom, not padded
  int width, hidden;  // padded
  int components;     // (order + 1)^2
  int sent;           // components of what neighbors send, (sent_order + 1)^2
  int rows() const { return components * radial; }
};

template <class T> struct Layer {
  bool first, last;
  int channels, columns;  // what a neighbor sends: `channels` scalars and, beyond the first layer, as many of each l
  int send_columns;       // channels, not padded
  int inputs, outputs;    // of the MLP, in units of `width`
  std::vector<int> depth, stride;  // [degree] moments that are mixed for one component; padded
  std::vector<Array<T>> mix, mix_back;
  Array<T> up, up_back, up_bias, down, down_back, down_bias;
  std::vector<Array<T>> send, send_back;  // [degree of what is sent]; the first layer's are in `FirstLayer`
  Array<T> send_bias;
};

// The first layer sends what depends on the species alone. Its messages fold into the mixing weights: moments are then
// summed for each element instead of each channel.
template <class T> struct FirstLayer {
  bool folds;
  std::vector<Array<T>> mix, mix_back;  // [degree], by radial function and element
  int depth, stride;                    // their number, and padded
  Array<T> sent, sent_mark;             // [element][channels], and what a mark adds
  Array<T> bias, bias_mark;             // [element][hidden]: the MLP's, with what h contributes
};

template <class T> struct Model {
  Sizes sizes;
  Products<T> products;
  T cutoff, norm, scale, decay, strength;
  double cutoff_squared, frequency;  // frequency: π / cutoff, of the first radial function
  Array<T> embedding, mark, radial;
  FirstLayer<T> start;
  std::vector<Layer<T>> layers;
  Array<T> readout, readout_back, readout_bias, readout_last;
  T readout_last_bias;
  bool has_pairs;
  Array<T> pairs;  // [element][element][1 + terms]: where the wall starts, then the coefficients
  Array<double> shift;
};

// Raises std::invalid_argument where sizes do not fit.
template <class T> Model<T> make_model(const mdpot_tide& tide);

}  // namespace mdpot
