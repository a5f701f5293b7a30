// The whole: sweeps over blocks of atoms, each split over the threads, from positions to energies, forces and virial.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <new>
#include <stdexcept>

#include "gradient_engine.h"
#include "interface.h"
#include "layer.h"
#include "pool.h"
#include "weights.h"

namespace mdpot {

template <class T, int ORDER> class Evaluation : public Engine {
 public:
  explicit Evaluation(Model<T>&& model) : model_(std::move(model)) {}

  void set_threads(int threads) override { threads_ = threads; }

  void forget(bool forked) override {
    if (forked) {
      // Left as they are: a thread of the parent may have been writing to them.
      (void)state_.release();
      (void)scratch_.release();
      (void)gradients_.release();
    }
    state_ = std::make_unique<State<T>>();
    scratch_ = std::make_unique<std::vector<Scratch<T>>>();
    gradients_.reset();
  }

  void train(const mdpot_tide& tide) override {
    places_ = std::make_unique<WeightPlaces<T>>(tide);
    weights_.assign(tide.weights, tide.weights + tide.n_weights);
  }

  mdpot_status set_weights(const double* weights) override {
    if (!places_) return MDPOT_BAD_ARGUMENT;
    weights_.assign(weights, weights + weights_.size());
    places_->update(model_, weights);
    return MDPOT_OK;
  }

  mdpot_status gradient(const Structure& s, const Cotangents& cotangents, double* gradient) override {
    if (!places_) return MDPOT_BAD_ARGUMENT;
    if (!gradients_) gradients_ = make_gradient_engine(T(0), ORDER);
    const mdpot_status status = gradients_->run(model_, s, cotangents, threads_);
    if (status == MDPOT_OK) places_->collect(gradients_->gradient(), weights_.data(), gradient);
    return status;
  }

  mdpot_status run(const Structure& s, double* energies, double* forces, double* virial) override {
    if (const mdpot_status wrong = check(s, model_.sizes.elements)) return wrong;
    if (virial) memset(virial, 0, s.n_systems * 9 * sizeof(double));
    if (s.n_atoms == 0) return s.n_candidates ? MDPOT_BAD_ARGUMENT : MDPOT_OK;
    const size_t blocks = (s.n_atoms + BLOCK - 1) / BLOCK;
    parts_ = int(std::min<size_t>(threads_, blocks));
    state_->grow(model_, s.n_atoms, s.n_candidates, parts_);
    if (scratch_->size() < size_t(parts_)) scratch_->resize(parts_);
    for (auto& list : state_->dsent)
      for (auto& copy : list) copy.clear();
    for (auto& copy : state_->dposition) copy.clear();
    status_ = MDPOT_OK;
    if (virial) virials_.assign(size_t(parts_) * s.n_systems * 9, 0.0);
    const std::vector<Translations> translations = translations_of(s);
    const int last = int(model_.layers.size()) - 1;

    sweep(s, [&](Sweep<T>& w, size_t from, size_t to) {
      w.most = find_candidates(s, *state_, from * BLOCK, std::min<size_t>(to * BLOCK, s.n_atoms));
      w.scratch.grow(model_, w.most);
      for (size_t block = from; block < to; block++) {
        select_neighbors(s, translations, model_, *state_, block * BLOCK, block * BLOCK + w.atoms(block));
        embed(w, block);
        if (last > 0) forward(w, 0, block);
      }
    });
    for (int layer = 1; layer < last; layer++)
      sweep(s, [&](Sweep<T>& w, size_t from, size_t to) {
        for (size_t block = from; block < to; block++) forward(w, layer, block);
      });
    sweep(s, [&](Sweep<T>& w, size_t from, size_t to) {
      for (size_t block = from; block < to; block++) {
        const Saved<T> kept = w.kept();
        layer_forward<T, ORDER>(w, last, block, kept);
        read_out(w, block, kept, energies);
        layer_backward<T, ORDER>(w, last, block, kept, true);
        if (last == 0) finish(w, block, energies, virial);
      }
    });
    for (int layer = last - 1; layer >= 0; layer--)
      sweep(s, [&](Sweep<T>& w, size_t from, size_t to) {
        for (size_t block = from; block < to; block++) {
          send_back(w, layer + 1, block);
          layer_backward<T, ORDER>(w, layer, block, state_->saved(model_, layer, block), false);
          if (layer == 0) finish(w, block, energies, virial);
        }
      });
    sweep(s, [&](Sweep<T>&, size_t from, size_t to) { collect(s, from, to, forces); });
    if (virial && status_ == MDPOT_OK) total_virials(s.n_systems, virial);
    return mdpot_status(status_.load());
  }

 private:
  template <class F> void sweep(const Structure& s, F&& f) {
    if (status_ != MDPOT_OK) return;
    parallel(parts_, [&](int part) {
      try {
        Scratch<T>& scratch = (*scratch_)[part];
        Sweep<T> view{model_, s, *state_, scratch, most_of(part), part};
        const size_t blocks = state_->blocks;
        f(view, blocks * part / parts_, blocks * (part + 1) / parts_);
        most_of(part) = view.most;
      } catch (const std::bad_alloc&) {
        status_ = MDPOT_OUT_OF_MEMORY;
      } catch (const std::invalid_argument&) {
        status_ = MDPOT_BAD_ARGUMENT;
      } catch (...) {
        status_ = MDPOT_FAILED;
      }
    });
  }

  size_t& most_of(int part) { return (*scratch_)[part].most; }

  void forward(Sweep<T>& w, int layer, size_t block) {
    const Saved<T> kept = state_->saved(model_, layer, block);
    layer_forward<T, ORDER>(w, layer, block, kept);
    update(w, block, kept);
    send(w, layer + 1, block);
  }

  // Adds pairs and reference to the energies of a block, and turns the derivatives by the vectors into forces.
  void finish(Sweep<T>& w, size_t block, double* energies, const double* virial) {
    for (int a = 0; a < w.atoms(block); a++) {
      const size_t i = block * BLOCK + a;
      const Neighbors<T> edges = state_->neighbors(i);
      if (model_.has_pairs) energies[i] += add_pairs(w, edges, i);
      energies[i] += model_.shift[w.structure.species[i]];
      scatter_forces(w, edges, i, virial != nullptr);
    }
  }

  double add_pairs(Sweep<T>& w, const Neighbors<T>& edges, size_t i) {
    const Sizes& z = model_.sizes;
    const int width = 1 + z.terms, n = edges.n;
    T* table = w.scratch.pairs.data();
    for (int k = 0; k < n; k++) {
      const size_t kind = size_t(w.structure.species[i]) * z.elements + w.structure.species[edges.atom[k]];
      const T keep = k < edges.count;
      for (int t = 0; t < width; t++) table[t * n + k] = keep * model_.pairs[kind * width + t];
    }
    Vector<T> total = all<T>(0);
    for (int k = 0; k < n; k += LANES<T>) {
      Vector<T> energy, slope;
      pair_energy<T>(load<T>(edges.distance + k), load<T>(table + k), table + n + k, z.terms, n, model_.decay,
                     model_.strength, model_.cutoff, energy, slope);
      total += energy;
      // Every pair comes twice, once for each of its atoms.
      slope *= T(.5);
      store<T>(edges.gx + k, load<T>(edges.gx + k) + slope * load<T>(edges.x + k));
      store<T>(edges.gy + k, load<T>(edges.gy + k) + slope * load<T>(edges.y + k));
      store<T>(edges.gz + k, load<T>(edges.gz + k) + slope * load<T>(edges.z + k));
    }
    return .5 * double(sum<T>(total));
  }

  void scatter_forces(Sweep<T>& w, const Neighbors<T>& edges, size_t i, bool wants_virial) {
    Scattered<double>& to = state_->dposition[w.part];
    double mine[3] = {0, 0, 0};
    double* v = wants_virial ? &virials_[(w.part * w.structure.n_systems + w.structure.of(i)) * 9] : nullptr;
    for (int k = 0; k < edges.count; k++) {
      const double g[3] = {double(edges.gx[k]), double(edges.gy[k]), double(edges.gz[k])};
      const size_t j = edges.atom[k];
      to.touched[j / Scattered<double>::PAGE] = 1;
      for (int c = 0; c < 3; c++) {
        mine[c] += g[c];
        to.values[3 * j + c] -= g[c];
      }
      if (!wants_virial) continue;
      const double d = edges.distance[k], r[3] = {d * edges.x[k], d * edges.y[k], d * edges.z[k]};
      for (int c = 0; c < 9; c++) v[c] += g[c / 3] * r[c % 3];
    }
    to.touched[i / Scattered<double>::PAGE] = 1;
    for (int c = 0; c < 3; c++) to.values[3 * i + c] += mine[c];
  }

  // The forces of the blocks' atoms, summed over all parts, whose sums are left zero.
  void collect(const Structure& s, size_t from, size_t to, double* forces) {
    bool finite = true;
    for (size_t i = from * BLOCK; i < std::min<size_t>(to * BLOCK, s.n_atoms); i++) {
      double total[3] = {0, 0, 0};
      for (Scattered<double>& copy : state_->dposition) {
        if (!copy.touched[i / Scattered<double>::PAGE]) continue;
        for (int c = 0; c < 3; c++) {
          total[c] += copy.values[3 * i + c];
          copy.values[3 * i + c] = 0;
        }
      }
      for (int c = 0; c < 3; c++) {
        forces[3 * i + c] = total[c];
        finite &= std::isfinite(total[c]);
      }
    }
    if (!finite) status_ = MDPOT_CLASH;
  }

  void total_virials(int64_t n_systems, double* virials) {
    for (int part = 0; part < parts_; part++)
      for (int64_t system = 0; system < n_systems; system++) {
        const double* from = &virials_[(part * n_systems + system) * 9];
        for (int k = 0; k < 9; k++) virials[9 * system + k] += .5 * (from[k] + from[k % 3 * 3 + k / 3]);
      }
  }

  Model<T> model_;
  std::unique_ptr<WeightPlaces<T>> places_;             // where it is trained
  std::vector<double> weights_;                         // the same
  std::unique_ptr<GradientEngine<T>> gradients_;
  std::unique_ptr<State<T>> state_ = std::make_unique<State<T>>();
  std::unique_ptr<std::vector<Scratch<T>>> scratch_ = std::make_unique<std::vector<Scratch<T>>>();
  std::vector<double> virials_;
  std::atomic<int> status_{MDPOT_OK};
  int threads_ = 1, parts_ = 1;
};

template <class T> std::unique_ptr<Engine> make_engine(const mdpot_tide& tide) {
  Model<T> model = make_model<T>(tide);
  switch (tide.order) {
    case 1: return std::make_unique<Evaluation<T, 1>>(std::move(model));
    case 2: return std::make_unique<Evaluation<T, 2>>(std::move(model));
    default: return std::make_unique<Evaluation<T, 3>>(std::move(model));
  }
}

}  // namespace mdpot
