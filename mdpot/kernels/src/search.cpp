// Search with bins (Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., section 5.3), as in
// mdpot.torch_pairs: the grid of bins is padded by periodic images of itself, and each atom is compared with the bins
// within reach. There may be as few as one bin in a direction; the padding then holds several images. A pair is a
// number, the second atom and the image it is in, so that pairs sorted by it are in the order of a neighbor list.
#include "search.h"

#include <atomic>

#include "grid.h"
#include "ordered.h"
#include "pool.h"
#include "vector.h"

namespace mdpot {
namespace {

constexpr int64_t FEWEST = 64;  // atoms that are worth another thread

// Those of the keys whose squared distance is below the limit; returns their number. Apart from what calls it, for it
// takes all that a compiler has registers for.
__attribute__((noinline)) size_t choose(const double* squares, const uint32_t* keys, size_t n, double limit,
                                        uint32_t* to) {
  size_t count = 0;
  for (size_t k = 0; k < n; k++) {
    to[count] = keys[k];
    count += squares[k] < limit;
  }
  return count;
}

// Looks around one atom after the other.
class Looker {
 public:
  Looker(const Grid& grid, double cutoff)
      : grid_(grid),
        limit_(cutoff * cutoff),
        found_(uint64_t(grid.n_atoms) << grid.image_bits),
        squares_(grid.most + LANES<double>),
        candidates_(grid.most + LANES<double>),
        near_(grid.most) {}

  // The keys of an atom's pairs in order, at the end of `keys`.
  void look(int64_t atom, std::vector<uint32_t>& keys) {
    double closest = 0;
    const size_t n = compare(atom, closest), before = keys.size();
    if (closest < grid_.uncertainty) settle(atom, n);
    const size_t count = choose(squares_.data(), candidates_.data(), n, limit_, near_.data());
    for (size_t k = 0; k < count; k++) found_.insert(near_[k]);
    found_.erase(grid_.key_of(atom));
    keys.resize(before + count - 1);
    found_.drain(keys.data() + before);
  }

 private:
  // Distances to all in the bins within reach, squared, and their keys. Returns their number, and by how much one of
  // them at least differs from the limit.
  size_t compare(int64_t atom, double& closest) {
    using V = Vector<double>;
    constexpr int lanes = LANES<double>;
    const double *home = grid_.home.data() + 3 * atom, *x = grid_.x.data(), *y = grid_.y.data(), *z = grid_.z.data();
    const V at_x = all(home[0]), at_y = all(home[1]), at_z = all(home[2]);
    const uint32_t* keys = grid_.keys.data();
    double* square = squares_.data();
    uint32_t* candidate = candidates_.data();
    const V limit = all(limit_);
    V least = limit;
    grid_.each_row(grid_.corner_of(atom), [&](size_t begin, size_t end) {
      // Whole vectors, of which the next row overwrites what is too much.
      for (size_t k = begin, to = 0; k < end; k += lanes, to += lanes) {
        const V dx = load(x + k) - at_x, dy = load(y + k) - at_y, dz = load(z + k) - at_z;
        const V d = dx * dx + dy * dy + dz * dz, off = d > limit ? d - limit : limit - d;
        least = off < least ? off : least;
        store<double>(square + to, d);
        memcpy(candidate + to, keys + k, lanes * sizeof *keys);
      }
      square += end - begin;
      candidate += end - begin;
    });
    closest = limit_;
    for (int q = 0; q < lanes; q++) closest = std::min(closest, double(least[q]));
    return square - squares_.data();
  }

  // Takes distances that are close to the cutoff again, such that a pair has the same from both of its ends.
  void settle(int64_t atom, size_t n) {
    for (size_t k = 0; k < n; k++)
      if (std::abs(squares_[k] - limit_) < grid_.uncertainty) squares_[k] = grid_.square(atom, candidates_[k]);
  }

  const Grid& grid_;
  const double limit_;
  OrderedSet found_;
  std::vector<double> squares_;
  std::vector<uint32_t> candidates_, near_;
};

}  // namespace

Pairs::Pairs(int64_t n_atoms, const double* positions, const double* cell, const uint8_t* periodic, double cutoff,
             int threads) {
  Grid grid(n_atoms, positions, Cell(cell, periodic), cutoff);
  const int64_t count = std::max<int64_t>(1, std::min<int64_t>(threads, n_atoms / FEWEST));
  parts_ = std::vector<Part>(count);
  first_of_ = std::vector<int64_t>(n_atoms + 1);
  std::atomic<bool> full{false};
  parallel(int(count), [&](int p) {
    try {
      Part& part = parts_[p];
      part.from = n_atoms * p / count;
      part.to = n_atoms * (p + 1) / count;
      Looker looker(grid, grid.cutoff);
      for (int64_t i = part.from; i < part.to; i++) {
        const size_t before = part.keys.size();
        looker.look(i, part.keys);
        first_of_[i + 1] = int64_t(part.keys.size() - before);
      }
    } catch (...) {
      full = true;
    }
  });
  if (full) throw std::bad_alloc();
  for (int64_t i = 0; i < n_atoms; i++) first_of_[i + 1] += first_of_[i];
  turns_ = std::move(grid.turns);
  images_ = std::move(grid.images);
  image_bits_ = grid.image_bits;
}

void Pairs::write(int64_t* first, int64_t* second, int32_t* shifts) const {
  parallel(int(parts_.size()), [&](int p) { write_part(parts_[p], first, second, shifts); });
}

void Pairs::write_part(const Part& part, int64_t* first, int64_t* second, int32_t* shifts) const {
  const uint32_t* key = part.keys.data();
  const uint32_t mask = (uint32_t(1) << image_bits_) - 1;
  for (int64_t i = part.from; i < part.to; i++)
    for (int64_t e = first_of_[i]; e < first_of_[i + 1]; e++, key++) {
      const int64_t j = *key >> image_bits_;
      const int32_t* image = images_.data() + 3 * (*key & mask);
      first[e] = i;
      second[e] = j;
      for (int a = 0; a < 3; a++)
        shifts[3 * e + a] = image[a] + (turns_.empty() ? 0 : turns_[3 * i + a] - turns_[3 * j + a]);
    }
}

}  // namespace mdpot
