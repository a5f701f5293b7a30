#include "soap.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <numeric>
#include <vector>

#include "pool.h"
#include "room.h"

namespace mdpot {
namespace {

using Settings = mdpot_soap_settings;

// What one thread does at a time: one matrix's outer products of a side, or its update.
struct Task {
  enum Kind { LEFT, RIGHT, UPDATE } kind;
  const mdpot_soap_weights* of;
  int64_t index;  // in the stack
  double cost;
};

// Where a matrix of the gradient and the weights begins, and how far apart its rows are.
struct Place {
  int64_t begin;
  int row;

  Place(const mdpot_soap_weights& w, int64_t index)
      : begin((index / w.abreast * w.rows * w.abreast + index % w.abreast) * w.columns), row(int(w.abreast * w.columns)) {}
};

// average ← β average + (1 - β) found
void blend(float* average, const Matrix& found, float beta) {
  for (int r = 0; r < found.rows; r++, average += found.columns)
    for (int c = 0; c < found.columns; c++) average[c] = beta * average[c] + (1 - beta) * found.of(r)[c];
}

void outer_product(const Task& task, const Settings& s, Room& room) {
  const int rows = int(task.of->rows), columns = int(task.of->columns);
  const Place at(*task.of, task.index);
  const Matrix gradient = room.view(task.of->gradient + at.begin, rows, columns, at.row);
  if (task.kind == Task::LEFT)
    blend(task.of->left + task.index * rows * rows, room.product(gradient, room.transposed(gradient)),
          float(s.basis_beta));
  else
    blend(task.of->right + task.index * columns * columns, room.product_of_transposed(gradient, gradient),
          float(s.basis_beta));
}

// Adam's moments of `count` numbers, in the eigenbasis; `gradient` becomes the update.
void adam(int64_t count, const float* gradient, float* mean, float* second, float* update, const Settings& s) {
  const float beta1 = float(s.beta1), beta2 = float(s.beta2), root_scale = float(s.root_scale), eps = float(s.eps);
  for (int64_t k = 0; k < count; k++) {
    const float g = gradient[k];
    mean[k] += (1 - beta1) * (g - mean[k]);
    second[k] = beta2 * second[k] + (1 - beta2) * g * g;
    update[k] = mean[k] / (std::sqrt(second[k]) * root_scale + eps);
  }
}

void apply(int64_t count, const float* update, float* weights, const Settings& s) {
  const float keep = float(s.keep), rate = float(s.rate);
  for (int64_t k = 0; k < count; k++) weights[k] = keep * weights[k] - rate * update[k];
}

void update_matrix(const Task& task, const Settings& s, Room& room) {
  const mdpot_soap_weights& w = *task.of;
  const int rows = int(w.rows), columns = int(w.columns);
  const Place place(w, task.index);
  const int64_t begin = task.index * rows * columns;
  const float* left_basis = w.left ? w.left_basis + task.index * rows * rows : nullptr;
  const float* right_basis = w.right ? w.right_basis + task.index * columns * columns : nullptr;
  const Matrix step = room.take(rows, columns);
  {
    Matrix turned = room.view(w.gradient + place.begin, rows, columns, place.row);
    if (left_basis) turned = room.product_of_transposed({const_cast<float*>(left_basis), rows, rows, rows}, turned);
    if (right_basis) turned = room.product(turned, room.view(right_basis, columns, columns));
    for (int r = 0; r < rows; r++) {
      const int64_t at = begin + int64_t(r) * columns;
      adam(columns, turned.of(r), w.mean + at, w.second + at, step.of(r), s);
      std::fill(step.of(r) + columns, step.of(r) + step.row, 0.f);
    }
  }
  Matrix back = step;
  if (left_basis) back = room.product({const_cast<float*>(left_basis), rows, rows, rows}, back);
  if (right_basis) back = room.product(back, room.transposed(room.view(right_basis, columns, columns)));
  for (int r = 0; r < rows; r++) apply(columns, back.of(r), w.weights + place.begin + int64_t(r) * place.row, s);
}

void update_vector(const mdpot_soap_weights& w, const Settings& s) {
  constexpr int64_t most = 256;
  float step[most];
  for (int64_t k = 0; k < w.columns; k += most) {
    const int64_t n = std::min(most, w.columns - k);
    adam(n, w.gradient + k, w.mean + k, w.second + k, step, s);
    apply(n, step, w.weights + k, s);
  }
}

// Room for the most that a task takes: so many of the gradient's shape, of the left basis's and of the right one's.
void start(Room& room, const mdpot_soap_weights& w, int shaped, int left, int right) {
  const size_t tall = padded<float>(int(w.rows)), wide = padded<float>(int(w.columns));
  room.start(shaped * tall * wide + (w.left ? left * tall * tall : 0) + (w.right ? right * wide * wide : 0));
}

void run(const Task& task, const Settings& s, Room& room) {
  if (task.of->rows == 0) return update_vector(*task.of, s);
  start(room, *task.of, 6, 1, 3);
  task.kind == Task::UPDATE ? update_matrix(task, s, room) : outer_product(task, s, room);
}

// The long ones first.
void sort(std::vector<Task>& tasks) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
}

std::vector<Task> tasks_of(int64_t count, const mdpot_soap_weights* weights) {
  std::vector<Task> tasks;
  for (int64_t p = 0; p < count; p++) {
    const mdpot_soap_weights& w = weights[p];
    const double rows = double(w.rows), columns = double(w.columns), size = std::max(rows, 1.) * columns;
    for (int64_t k = 0; k < w.n; k++) {
      if (w.left) tasks.push_back({Task::LEFT, &w, k, size * rows});
      if (w.right) tasks.push_back({Task::RIGHT, &w, k, size * columns});
      tasks.push_back({Task::UPDATE, &w, k, 2 * size * ((w.left ? rows : 0) + (w.right ? columns : 0)) + 10 * size});
    }
  }
  sort(tasks);
  return tasks;
}

// Eigenvectors of a side, their columns before and after a refreshment.
struct Turn {
  Matrix old, now;
  std::vector<int> order;  // `now`'s column k began as `old`'s column order[k]
};

// New eigenvectors: average · basis, orthonormal.
Turn turn(float* average, float* basis, int n, Room& room) {
  const Matrix old = room.take(n, n), by_row = room.view(basis, n, n);
  for (int r = 0; r < n; r++) memcpy(old.of(r), by_row.of(r), sizeof(float) * old.row);
  const Matrix moved = room.transposed(room.product(room.view(average, n, n), old));
  const Matrix vectors = room.transposed(old);
  std::vector<double> eigenvalues(n);
  for (int k = 0; k < n; k++)
    eigenvalues[k] = std::inner_product(moved.of(k), moved.of(k) + n, vectors.of(k), 0.0);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return eigenvalues[a] > eigenvalues[b]; });
  const Matrix rows = room.take(n, n);
  for (int k = 0; k < n; k++) memcpy(rows.of(k), moved.of(order[k]), sizeof(float) * rows.row);
  orthonormalize(rows, room);
  const Matrix now = room.transposed(rows);
  for (int r = 0; r < n; r++) memcpy(basis + int64_t(r) * n, now.of(r), sizeof(float) * n);
  return {old, now, order};
}

void refresh(const Task& task, Room& room) {
  const mdpot_soap_weights& w = *task.of;
  const int rows = int(w.rows), columns = int(w.columns);
  const int64_t begin = task.index * rows * columns;
  start(room, w, 6, 9, 10);
  Matrix mean = room.view(w.mean + begin, rows, columns);
  std::vector<int> by_row(rows), by_column(columns);
  std::iota(by_row.begin(), by_row.end(), 0);
  std::iota(by_column.begin(), by_column.end(), 0);
  if (w.left) {
    Turn left = turn(w.left + task.index * rows * rows, w.left_basis + task.index * rows * rows, rows, room);
    mean = room.product_of_transposed(left.now, room.product(left.old, mean));
    by_row = std::move(left.order);
  }
  if (w.right) {
    const int64_t at = task.index * columns * columns;
    Turn right = turn(w.right + at, w.right_basis + at, columns, room);
    mean = room.product(mean, room.product_of_transposed(right.old, right.now));
    by_column = std::move(right.order);
  }
  const Matrix second = room.take(rows, columns);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) second.of(r)[c] = w.second[begin + int64_t(by_row[r]) * columns + by_column[c]];
  for (int r = 0; r < rows; r++) {
    memcpy(w.mean + begin + int64_t(r) * columns, mean.of(r), sizeof(float) * columns);
    memcpy(w.second + begin + int64_t(r) * columns, second.of(r), sizeof(float) * columns);
  }
}

bool fits(const mdpot_soap_weights& w, bool gradient) {
  constexpr int64_t most = 1 << 24;
  const bool matrix = w.rows > 0 && w.columns > 0 && w.rows <= most && w.columns <= most && w.abreast > 0 &&
                      w.abreast <= most / w.columns && w.n % w.abreast == 0;
  const bool vector = w.rows == 0 && w.n == 1 && w.columns >= 0 && !w.left && !w.right;
  return w.n >= 0 && (matrix || vector) && (w.gradient || !gradient) && w.weights && w.mean && w.second &&
         (!w.left || w.left_basis) && (!w.right || w.right_basis);
}

// f(task, room) for all, each by whichever thread is free.
template <class F> mdpot_status share(const std::vector<Task>& tasks, int threads, F&& f) {
  std::atomic<size_t> next{0};
  std::atomic<bool> full{false};
  parallel(int(std::min<size_t>(threads, tasks.size())), [&](int) {
    thread_local Room room;
    try {
      for (size_t k; (k = next++) < tasks.size();) f(tasks[k], room);
    } catch (const std::bad_alloc&) {
      full = true;
    }
  });
  return full ? MDPOT_OUT_OF_MEMORY : MDPOT_OK;
}

bool fit(int64_t count, const mdpot_soap_weights* weights, int threads, bool gradient) {
  return count >= 0 && threads >= 1 &&
         std::all_of(weights, weights + count, [&](const mdpot_soap_weights& w) { return fits(w, gradient); });
}

}  // namespace

mdpot_status soap_step(int64_t count, const mdpot_soap_weights* weights, const Settings& settings, int threads) {
  if (!fit(count, weights, threads, true)) return MDPOT_BAD_ARGUMENT;
  return share(tasks_of(count, weights), threads, [&](const Task& task, Room& room) { run(task, settings, room); });
}

mdpot_status soap_refresh(int64_t count, const mdpot_soap_weights* weights, int threads) {
  if (!fit(count, weights, threads, false)) return MDPOT_BAD_ARGUMENT;
  std::vector<Task> tasks;
  for (const mdpot_soap_weights* w = weights; w < weights + count; w++)
    for (int64_t k = 0; k < w->n && (w->left || w->right); k++)
      tasks.push_back({Task::UPDATE, w, k, std::pow(w->left ? w->rows : 0, 3) + std::pow(w->right ? w->columns : 0, 3)});
  sort(tasks);
  return share(tasks, threads, [](const Task& task, Room& room) { refresh(task, room); });
}

}  // namespace mdpot
