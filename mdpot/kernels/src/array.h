// Arrays that begin on a cache line.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

namespace mdpot {

template <class T> class Array {
 public:
  Array() = default;
  explicit Array(size_t n) { grow(n); }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Array() { release(); }

  // Room for n elements, all zero where it had to be made anew: there what the array held is gone.
  void grow(size_t n) {
    if (n <= size_) return;
    release();
    data_ = static_cast<T*>(operator new(n * sizeof(T), LINE));
    size_ = n;
    memset(static_cast<void*>(data_), 0, n * sizeof(T));
  }

  size_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t LINE{64};

  void release() {
    if (data_) operator delete(data_, LINE);
    data_ = nullptr;
    size_ = 0;
  }
  void swap(Array& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mdpot
