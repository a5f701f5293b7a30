// A set of numbers that gives them back in order, without comparing them: a tree of bits, each of which says whether
// any of the 64 below it is set.
#pragma once

#include <cstdint>
#include <vector>

namespace mdpot {

class OrderedSet {
 public:
  // For numbers below `end`.
  explicit OrderedSet(uint64_t end) : leaves_(words(end)), middle_(words(words(end))), top_(words(words(words(end)))) {}

  void insert(uint32_t number) {
    leaves_[number >> 6] |= bit(number);
    uint64_t& above = middle_[number >> 12];
    if (!above) top_[number >> 18] |= bit(number >> 12);
    above |= bit(number >> 6);
  }

  void erase(uint32_t number) { leaves_[number >> 6] &= ~bit(number); }

  // All of them from the least on to `to`; then it is empty. Returns where the next would go.
  uint32_t* drain(uint32_t* to) {
    for (size_t t = 0; t < top_.size(); t++)
      for (uint64_t high = take(top_[t]); high; high &= high - 1) {
        const size_t m = 64 * t + __builtin_ctzll(high);
        for (uint64_t mid = take(middle_[m]); mid; mid &= mid - 1) {
          const size_t l = 64 * m + __builtin_ctzll(mid);
          for (uint64_t low = take(leaves_[l]); low; low &= low - 1) *to++ = uint32_t(64 * l) + __builtin_ctzll(low);
        }
      }
    return to;
  }

 private:
  static size_t words(uint64_t bits) { return size_t((bits + 63) / 64); }
  static uint64_t bit(uint32_t number) { return uint64_t(1) << (number & 63); }
  static uint64_t take(uint64_t& word) {
    const uint64_t was = word;
    word = 0;
    return was;
  }

  std::vector<uint64_t> leaves_, middle_, top_;
};

}  // namespace mdpot
