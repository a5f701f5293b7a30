// Vectors as wide as the processor's registers, and mathematics on them.
//
// GCC turns wider vectors into scalar code that runs through memory, 40 times slower: the width follows the instruction
// set that this is compiled for, and each instruction set has a library of its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#ifndef MDPOT_VECTOR_BYTES
#if defined(__AVX512F__)
#define MDPOT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define MDPOT_VECTOR_BYTES 32
#else
#define MDPOT_VECTOR_BYTES 16
#endif
#endif

#define MDPOT_INLINE inline __attribute__((always_inline))
#define MDPOT_INLINE_LAMBDA __attribute__((always_inline))

namespace mdpot {

// f(0), f(1), … f(N - 1), each index a constant type, written out.
template <class F, size_t... I> MDPOT_INLINE void unrolled(std::index_sequence<I...>, F&& f) {
  (f(std::integral_constant<int, int(I)>()), ...);
}
template <int N, class F> MDPOT_INLINE void unrolled(F&& f) { unrolled(std::make_index_sequence<N>(), f); }

template <class T, int BYTES> struct Register;
template <int BYTES> struct Register<float, BYTES> {
  typedef float Float __attribute__((vector_size(BYTES)));
  typedef int32_t Int __attribute__((vector_size(BYTES)));
};
template <int BYTES> struct Register<double, BYTES> {
  typedef double Float __attribute__((vector_size(BYTES)));
  typedef int64_t Int __attribute__((vector_size(BYTES)));
};

template <class T> using Vector = typename Register<T, MDPOT_VECTOR_BYTES>::Float;
template <class T> using Integers = typename Register<T, MDPOT_VECTOR_BYTES>::Int;
template <class T> constexpr int LANES = MDPOT_VECTOR_BYTES / sizeof(T);

template <class T> constexpr int padded(int n) { return (n + LANES<T> - 1) / LANES<T> * LANES<T>; }

template <class T> MDPOT_INLINE Vector<T> load(const T* from) {
  Vector<T> x;
  memcpy(&x, from, sizeof x);
  return x;
}

template <class T> MDPOT_INLINE void store(T* to, Vector<T> x) { memcpy(to, &x, sizeof x); }

template <class T> MDPOT_INLINE Vector<T> all(T x) { return Vector<T>{} + x; }

template <class T> MDPOT_INLINE T sum(Vector<T> x) {
  T lanes[LANES<T>];
  store<T>(lanes, x);
  for (int half = LANES<T> / 2; half > 0; half /= 2)
    for (int q = 0; q < half; q++) lanes[q] += lanes[q + half];
  return lanes[0];
}

template <class T> MDPOT_INLINE Vector<T> sqrt(Vector<T> x) {
  for (int q = 0; q < LANES<T>; q++) x[q] = std::sqrt(x[q]);
  return x;
}

// Swaps, between two vectors, the lanes whose numbers differ in one bit: the step of which a transposition is made.
template <class T, int BIT, size_t... Q>
MDPOT_INLINE void exchange(Vector<T>& x, Vector<T>& y, std::index_sequence<Q...>) {
  constexpr int n = LANES<T>;
#if defined(__clang__)
  const Vector<T> low = __builtin_shufflevector(x, y, (Q & BIT ? int(Q) - BIT + n : int(Q))...);
  y = __builtin_shufflevector(x, y, (Q & BIT ? int(Q) + n : int(Q) + BIT)...);
#else
  const Integers<T> first = {(Q & BIT ? int(Q) - BIT + n : int(Q))...};
  const Integers<T> second = {(Q & BIT ? int(Q) + n : int(Q) + BIT)...};
  const Vector<T> low = __builtin_shuffle(x, y, first);
  y = __builtin_shuffle(x, y, second);
#endif
  x = low;
}

template <class T, int BIT = 1> MDPOT_INLINE void transpose(Vector<T>* rows) {
  if constexpr (BIT < LANES<T>) {
    for (int r = 0; r < LANES<T>; r++)
      if (!(r & BIT)) exchange<T, BIT>(rows[r], rows[r + BIT], std::make_index_sequence<LANES<T>>());
    transpose<T, 2 * BIT>(rows);
  }
}

// The sums over each of LANES vectors, as one vector.
template <class T, int BIT = 1> MDPOT_INLINE Vector<T> sums(Vector<T>* rows) {
  if constexpr (BIT < LANES<T>) {
    for (int r = 0; r < LANES<T>; r += 2 * BIT) {
      exchange<T, BIT>(rows[r], rows[r + BIT], std::make_index_sequence<LANES<T>>());
      rows[r] += rows[r + BIT];
    }
    return sums<T, 2 * BIT>(rows);
  } else {
    return rows[0];
  }
}

// exp to a few units in the last place; arguments beyond the range of T count as its ends.
MDPOT_INLINE Vector<float> exp(Vector<float> x) {
  using V = Vector<float>;
  x = x < -87.f ? all<float>(-87.f) : x;
  x = x > 87.f ? all<float>(87.f) : x;
  const float round = 12582912.f;  // 1.5 · 2^23: what is added to it loses its fraction
  const V shifted = x * 1.44269504f + round;
  const V n = shifted - round;
  V r = x - n * 0.693359375f;
  r += n * 2.12194440e-4f;
  V p = all<float>(1.f / 5040);
  for (float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f, 1.f, 1.f}) p = p * r + c;
  Integers<float> bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;  // the low bits of `shifted` are n; those above leave on the left
  V power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

MDPOT_INLINE Vector<double> exp(Vector<double> x) {
  using V = Vector<double>;
  x = x < -700. ? all<double>(-700.) : x;
  x = x > 700. ? all<double>(700.) : x;
  const double round = 6755399441055744.;  // 1.5 · 2^52
  const V shifted = x * 1.4426950408889634 + round;
  const V n = shifted - round;
  V r = x - n * 6.93147180369123816490e-01;
  r -= n * 1.90821492927058770002e-10;
  V p = all<double>(1.);
  for (int k = 14; k >= 1; k--) p = p * r * (1. / k) + 1.;
  Integers<double> bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  V power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

// Sine and cosine of frequency x, an angle from 0 to π: the series around π/2. What T leaves of the constants is added
// where it is not lost.
template <class T> MDPOT_INLINE void sincos(Vector<T> x, double frequency, Vector<T>& sine, Vector<T>& cosine) {
  constexpr double right = 1.5707963267948966;
  const Vector<T> f =
      (x * T(frequency) - T(right)) + (x * T(frequency - double(T(frequency))) + T(double(T(right)) - right));
  const Vector<T> square = f * f;
  constexpr int terms = sizeof(T) == 4 ? 6 : 11;
  Vector<T> even = all<T>(1), odd = all<T>(1);
  for (int k = terms; k >= 1; k--) {
    even = even * square * T(-1. / ((2 * k - 1) * (2 * k))) + T(1);
    odd = odd * square * T(-1. / ((2 * k) * (2 * k + 1))) + T(1);
  }
  sine = even;
  cosine = -(odd * f);
}

}  // namespace mdpot
