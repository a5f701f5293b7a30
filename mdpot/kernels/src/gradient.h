// Derivatives of a loss by the weights. With v and σ the loss's derivatives by forces and stress, all that is wanted is
// the derivative, as atoms go along -v and the cell is strained by σ, of the energy's first derivative by the weights:
// one pass forward and back of dual numbers, without a second derivative. See docs/engine.md.
#pragma once

#include <atomic>

#include "dual_layer.h"
#include "gradient_engine.h"
#include "pool.h"

namespace mdpot {

template <class T, int ORDER> class GradientPass : public GradientEngine<T> {
 public:
  const Gradient<T>& gradient() const override { return scratch_[0].gradient; }

  mdpot_status run(const Model<T>& model, const Structure& s, const Cotangents& c, int threads) override {
    if (const mdpot_status wrong = check(s, model.sizes.elements)) return wrong;
    const size_t blocks = (s.n_atoms + BLOCK - 1) / BLOCK;
    parts_ = int(std::max<size_t>(1, std::min<size_t>(threads, blocks)));
    state_.grow(model, s.n_atoms, s.n_candidates, parts_);
    if (scratch_.size() < size_t(parts_)) scratch_.resize(parts_);
    for (auto& list : state_.dsent)
      for (auto& copy : list) copy.clear();
    status_ = MDPOT_OK;
    const std::vector<Translations> translations = translations_of(s);
    const int last = int(model.layers.size()) - 1;

    sweep(model, s, c, [&](DualSweep<T>& w, size_t from, size_t to) {
      find_edges(w, translations, from * BLOCK, std::min<size_t>(to * BLOCK, s.n_atoms));
      w.scratch.gradient.start(model);
      for (size_t block = from; block < to; block++) {
        dual_embed(w, block);
        if (last > 0) forward(w, 0, block);
      }
    });
    for (int layer = 1; layer < last; layer++)
      sweep(model, s, c, [&](DualSweep<T>& w, size_t from, size_t to) {
        for (size_t block = from; block < to; block++) forward(w, layer, block);
      });
    sweep(model, s, c, [&](DualSweep<T>& w, size_t from, size_t to) {
      for (size_t block = from; block < to; block++) {
        const Kept<T> kept = w.kept(last, block);
        dual_forward<T, ORDER>(w, last, block, kept);
        dual_read_out(w, block, kept);
        dual_backward<T, ORDER>(w, last, block, kept);
        if (last == 0) dual_embed_back(w, block);
      }
    });
    for (int layer = last - 1; layer >= 0; layer--)
      sweep(model, s, c, [&](DualSweep<T>& w, size_t from, size_t to) {
        for (size_t block = from; block < to; block++) {
          dual_send_back(w, layer + 1, block);
          dual_backward<T, ORDER>(w, layer, block, w.kept(layer, block));
          if (layer == 0) dual_embed_back(w, block);
        }
      });
    for (int part = 1; part < parts_ && status_ == MDPOT_OK; part++) scratch_[0].gradient.add(scratch_[part].gradient);
    return mdpot_status(status_.load());
  }

 private:
  void find_edges(DualSweep<T>& w, const std::vector<Translations>& translations, size_t from, size_t to) {
    const Structure& s = w.structure;
    w.scratch.grow(w.model, find_candidates(s, state_.edges, from, to));
    select_neighbors(s, translations, w.model, state_.edges, from, to);
    for (size_t i = from; i < to; i++)
      set_directions(state_.edges.neighbors(i), i, w.cotangents.moved,
                     w.cotangents.strain ? w.cotangents.strain + 9 * s.of(i) : nullptr);
  }

  void forward(DualSweep<T>& w, int layer, size_t block) {
    const Kept<T> kept = w.kept(layer, block);
    dual_forward<T, ORDER>(w, layer, block, kept);
    dual_update<T, ORDER>(w, layer, block, kept);
    dual_send(w, layer + 1, block);
  }

  template <class F> void sweep(const Model<T>& model, const Structure& s, const Cotangents& c, F&& f) {
    if (status_ != MDPOT_OK) return;
    const size_t blocks = state_.edges.blocks;
    parallel(parts_, [&](int part) {
      try {
        DualSweep<T> view{model, s, c, state_, scratch_[part], part};
        f(view, blocks * part / parts_, blocks * (part + 1) / parts_);
      } catch (const std::bad_alloc&) {
        status_ = MDPOT_OUT_OF_MEMORY;
      } catch (const std::invalid_argument&) {
        status_ = MDPOT_BAD_ARGUMENT;
      } catch (...) {
        status_ = MDPOT_FAILED;
      }
    });
  }

  DualState<T> state_;
  std::vector<DualScratch<T>> scratch_;
  std::atomic<int> status_{MDPOT_OK};
  int parts_ = 1;
};

template <class T> std::unique_ptr<GradientEngine<T>> make_gradient_pass(int order) {
  if (order == 1) return std::make_unique<GradientPass<T, 1>>();
  if (order == 2) return std::make_unique<GradientPass<T, 2>>();
  return std::make_unique<GradientPass<T, 3>>();
}

}  // namespace mdpot
