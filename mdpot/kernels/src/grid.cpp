#include "grid.h"

#include <limits>

namespace mdpot {
namespace {

constexpr double MOST_CANDIDATES = 2e9, MOST_PER_ATOM = 3e6;  // as in mdpot.torch_pairs.require_manageable
constexpr double FINENESS = 2;                                // bins in a cutoff
constexpr double FEW_CANDIDATES = 1e7;                        // some milliseconds
constexpr double CROWD = 30;                                  // times as many candidates as were all spread evenly

void refuse() { throw std::invalid_argument("not for this search"); }

// Of each atom, were all spread evenly.
double candidates_of(double n_atoms, const double* lengths, const bool* periodic, double cutoff) {
  double candidates = n_atoms;
  for (int a = 0; a < 3; a++) {
    const double ratio = lengths[a] / cutoff;
    if (ratio >= 3)
      candidates *= 3 / ratio;
    else if (periodic[a])
      candidates *= 2 / ratio + 1;
  }
  return candidates;
}

}  // namespace

Grid::Grid(int64_t n_atoms, const double* positions, const Cell& cell, double cutoff)
    : cell(cell), n_atoms(n_atoms), cutoff(cutoff) {
  if (n_atoms < 1 || n_atoms > INT32_MAX || !(cutoff > 0 && cutoff * cutoff > 0)) refuse();
  wrap(positions);
  choose_bins();
  list_images();
  sort_into_bins();
  fill();
  require_spread();
}

void Grid::wrap(const double* positions) {
  home = std::vector<double>(positions, positions + 3 * n_atoms);
  fractional_ = std::vector<double>(3 * n_atoms);
  double high[3];
  for (int a = 0; a < 3; a++) low_[a] = INFINITY, high[a] = -INFINITY;
  for (int64_t i = 0; i < n_atoms; i++) {
    double* f = fractional_.data() + 3 * i;
    // Not `>`: NaN must be refused.
    for (int c = 0; c < 3; c++)
      if (!(std::abs(positions[3 * i + c]) <= FARTHEST)) refuse();
    cell.fractional(positions + 3 * i, f);
    for (int a = 0; a < 3; a++) {
      if (!cell.periodic[a]) {
        low_[a] = std::min(low_[a], f[a]);
        high[a] = std::max(high[a], f[a]);
        continue;
      }
      const double turn = std::floor(f[a]);
      if (turn == 0) continue;
      if (!(std::abs(turn) < double(1 << 29))) refuse();  // their differences are int32
      if (turns.empty()) turns = std::vector<int32_t>(3 * n_atoms);
      turns[3 * i + a] = int32_t(turn);
      f[a] -= turn;
      for (int c = 0; c < 3; c++) home[3 * i + c] -= turn * cell.rows[a][c];
    }
  }
  for (int a = 0; a < 3; a++) {
    extent_[a] = cell.periodic[a] ? 1 : high[a] - low_[a];
    if (cell.periodic[a]) low_[a] = 0;
    lengths_[a] = cell.periodic[a] ? cell.heights[a] : extent_[a];
  }
}

void Grid::choose_bins() {
  if (!(cell.periodic[0] || cell.periodic[1] || cell.periodic[2])) cutoff = std::min(cutoff, length(extent_) + 1);
  expected_ = candidates_of(double(n_atoms), lengths_, cell.periodic, cutoff);
  // Not `>`: NaN must be refused.
  if (!(expected_ <= MOST_PER_ATOM && expected_ * double(n_atoms) <= MOST_CANDIDATES)) refuse();
  for (int a = 0; a < 3; a++)
    shape[a] = std::max<int64_t>(1, int64_t(std::min(1e9, FINENESS * (1 - 1e-9) * lengths_[a] / cutoff)));
  while (double(shape[0]) * double(shape[1]) * double(shape[2]) > 2. * double(n_atoms)) {
    int64_t& largest = *std::max_element(shape, shape + 3);
    largest = (largest + 1) / 2;
    coarse_ = true;
  }
  for (int a = 0; a < 3; a++) {
    // A direction that is not periodic has no images, and no bins beyond its own.
    const bool alone = !cell.periodic[a] && shape[a] == 1;
    reach[a] = alone ? 0 : int64_t(cutoff * double(shape[a]) / lengths_[a]) + 1;
    if (!cell.periodic[a]) reach[a] = std::min(reach[a], shape[a] - 1);
    most_[a] = cell.periodic[a] ? (reach[a] + shape[a] - 1) / shape[a] : 0;
    padded[a] = shape[a] + 2 * reach[a];
  }
}

void Grid::list_images() {
  uint64_t count = 1;
  for (int64_t most : most_) count *= 2 * most + 1;
  while (uint64_t(1) << image_bits < count) image_bits++;
  if (image_bits > 31 || uint64_t(n_atoms) << image_bits > UINT32_MAX) refuse();
  home_image_ = uint32_t(count / 2);
  images = std::vector<int32_t>(3 * count);
  int32_t* to = images.data();
  for (int64_t a = -most_[0]; a <= most_[0]; a++)
    for (int64_t b = -most_[1]; b <= most_[1]; b++)
      for (int64_t c = -most_[2]; c <= most_[2]; c++)
        for (int64_t shift : {a, b, c}) *to++ = int32_t(shift);
}

void Grid::sort_into_bins() {
  bins_ = std::vector<int32_t>(3 * n_atoms);
  begin_ = std::vector<uint32_t>(shape[0] * shape[1] * shape[2] + 1);
  std::vector<uint32_t> bin_of(n_atoms);
  for (int64_t i = 0; i < n_atoms; i++) {
    int32_t* at = bins_.data() + 3 * i;
    for (int a = 0; a < 3; a++) {
      const double part = extent_[a] > 0 ? (fractional_[3 * i + a] - low_[a]) / extent_[a] : 0;
      at[a] = int32_t(std::clamp<double>(part * double(shape[a]), 0, double(shape[a] - 1)));
    }
    bin_of[i] = uint32_t((at[0] * shape[1] + at[1]) * shape[2] + at[2]);
    begin_[bin_of[i] + 1]++;
  }
  for (size_t b = 1; b < begin_.size(); b++) begin_[b] += begin_[b - 1];
  std::vector<uint32_t> next(begin_.begin(), begin_.end() - 1);
  order_ = std::vector<uint32_t>(n_atoms);
  for (int64_t i = 0; i < n_atoms; i++) order_[next[bin_of[i]]++] = uint32_t(i);
}

// Where there would be far more bins than atoms, and in these fewer ones the atoms still crowd, they are in groups far
// apart from each other: it would take the squares of their numbers.
void Grid::require_spread() {
  double total = 0;
  for (int64_t a = 0, bin = 0; a < shape[0]; a++)
    for (int64_t b = 0; b < shape[1]; b++)
      for (int64_t c = 0; c < shape[2]; c++, bin++) {
        const size_t inside = begin_[bin + 1] - begin_[bin];
        if (!inside) continue;
        size_t count = 0;
        each_row((a * padded[1] + b) * padded[2] + c, [&](size_t begin, size_t end) { count += end - begin; });
        most = std::max(most, count);
        total += double(count) * double(inside);
      }
  if (coarse_ && total > std::max(FEW_CANDIDATES, CROWD * expected_ * double(n_atoms))) refuse();
}

// Which bin stands in each place of the padded grid, in which image; in aperiodic directions beyond the ends none does.
void Grid::fill() {
  std::vector<int64_t> source[3], image[3];
  for (int a = 0; a < 3; a++)
    for (int64_t p = -reach[a]; p < shape[a] + reach[a]; p++) {
      const int64_t turn = p >= 0 ? p / shape[a] : -((shape[a] - 1 - p) / shape[a]);
      source[a].push_back(turn && !cell.periodic[a] ? -1 : p - turn * shape[a]);
      image[a].push_back(turn);
    }
  const auto each_bin = [&](auto&& f) {
    for (int64_t a = 0, at = 0; a < padded[0]; a++)
      for (int64_t b = 0; b < padded[1]; b++)
        for (int64_t c = 0; c < padded[2]; c++, at++) {
          const bool none = source[0][a] < 0 || source[1][b] < 0 || source[2][c] < 0;
          const int64_t bin = (source[0][a] * shape[1] + source[1][b]) * shape[2] + source[2][c];
          f(at, none ? -1 : bin, image[0][a], image[1][b], image[2][c]);
        }
  };
  uint64_t total = 0;
  first = std::vector<uint32_t>(padded[0] * padded[1] * padded[2] + 1);
  each_bin([&](int64_t at, int64_t bin, int64_t, int64_t, int64_t) {
    if (bin >= 0) total += begin_[bin + 1] - begin_[bin];
    first[at + 1] = uint32_t(total);
  });
  if (total > INT32_MAX) refuse();
  constexpr int lanes = LANES<double>;  // read beyond the end
  for (Array<double>* axis : {&x, &y, &z}) axis->grow(total + lanes);
  keys = std::vector<uint32_t>(total + lanes);
  double farthest = cutoff;
  for (double coordinate : home) farthest = std::max(farthest, std::abs(coordinate));
  each_bin([&](int64_t at, int64_t bin, int64_t a, int64_t b, int64_t c) {
    if (bin < 0) return;
    const int32_t turn[3] = {int32_t(a), int32_t(b), int32_t(c)};
    double shift[3];
    for (int d = 0; d < 3; d++) {
      shift[d] = cell.translation(turn, d);
      farthest = std::max(farthest, std::abs(shift[d]));
    }
    const int64_t rank = ((a + most_[0]) * (2 * most_[1] + 1) + b + most_[1]) * (2 * most_[2] + 1) + c + most_[2];
    uint32_t to = first[at];
    for (uint32_t k = begin_[bin]; k < begin_[bin + 1]; k++, to++) {
      const uint32_t atom = order_[k];
      x[to] = home[3 * atom] + shift[0];
      y[to] = home[3 * atom + 1] + shift[1];
      z[to] = home[3 * atom + 2] + shift[2];
      keys[to] = atom << image_bits | uint32_t(rank);
    }
  });
  uncertainty = 64 * std::numeric_limits<double>::epsilon() * cutoff * farthest;
}

}  // namespace mdpot
