// Functions of the vector to a neighbor: Bessel functions with their envelope, real spherical harmonics, wall and pair
// energy; and what they give back as derivatives. The same as in `mdpot.radial` and `mdpot.models.angular`.
#pragma once

#include "vector.h"

namespace mdpot {

// 1 - 28 x^6 + 48 x^7 - 21 x^8 with x = d / cutoff, and its derivative by d.
template <class T> MDPOT_INLINE void envelope(Vector<T> x, T cutoff, Vector<T>& value, Vector<T>& slope) {
  const Vector<T> x2 = x * x, x5 = x2 * x2 * x;
  value = T(1) - x5 * x * (T(28) - x * (T(48) - T(21) * x));
  slope = x5 * (T(-168) + x * (T(336) - T(168) * x)) * (T(1) / cutoff);
}

template <class T> MDPOT_INLINE Vector<T> reduced(Vector<T> distance, T cutoff) {
  const Vector<T> x = distance * (T(1) / cutoff);
  return x > T(1) ? all<T>(1) : x;
}

// sin(k frequency d) envelope norm / d for k = 1 … n_basis, with frequency = π / cutoff, into values[k - 1][n]; where
// slopes is not null, their derivatives by d into slopes[k - 1][n]. n is a multiple of LANES.
template <class T>
void bessel_functions(const T* distance, int n, int n_basis, double frequency, T cutoff, T norm, T* values,
                      T* slopes) {
  using V = Vector<T>;
  constexpr int STRETCH = 8;
  for (int k = 0; k < n; k += LANES<T>) {
    const V d = load<T>(distance + k), x = reduced<T>(d, cutoff), inverse = T(1) / d;
    V fade, fade_slope, s[STRETCH], c[STRETCH];
    envelope<T>(x, cutoff, fade, fade_slope);
    const V weight = fade * norm * inverse, weight_slope = (fade_slope * norm - weight) * inverse;
    sincos<T>(d, frequency, s[0], c[0]);
    // By the sine and cosine of a sum: rounding grows with the number of steps. With 2 cos θ sin(b θ) - sin((b - 1) θ),
    // half the work, it would grow with the square. For many functions whole stretches are turned.
    for (int b = 1; b < STRETCH; b++) {
      s[b] = s[b - 1] * c[0] + c[b - 1] * s[0];
      c[b] = c[b - 1] * c[0] - s[b - 1] * s[0];
    }
    V turn_s = all<T>(0), turn_c = all<T>(1);
    for (int start = 0; start < n_basis; start += STRETCH) {
      const int size = n_basis - start < STRETCH ? n_basis - start : STRETCH;
      for (int b = 0; b < size; b++) {
        const V sine = start ? turn_s * c[b] + turn_c * s[b] : s[b];
        store<T>(values + (start + b) * n + k, sine * weight);
        if (!slopes) continue;
        const V cosine = start ? turn_c * c[b] - turn_s * s[b] : c[b];
        store<T>(slopes + (start + b) * n + k, T(frequency * (start + b + 1)) * cosine * weight + sine * weight_slope);
      }
      const V turned = turn_s * c[STRETCH - 1] + turn_c * s[STRETCH - 1];
      turn_c = turn_c * c[STRETCH - 1] - turn_s * s[STRETCH - 1];
      turn_s = turned;
    }
  }
}

// Y[0 … (ORDER + 1)^2 - 1] of a unit vector: rows by l, m. V is a vector, or a dual number.
template <class T, int ORDER, class V> MDPOT_INLINE void harmonics(V x, V y, V z, V* Y) {
  const T s3 = T(1.7320508075688772), s15 = T(3.872983346207417), s38 = T(0.6123724356957945),
          s58 = T(0.7905694150420949);
  Y[0] = V{} + T(1);
  Y[1] = x;
  Y[2] = y;
  Y[3] = z;
  const V xx = x * x, yy = y * y, zz = z * z;
  if constexpr (ORDER >= 2) {
    Y[4] = s3 * x * y;
    Y[5] = s3 * y * z;
    Y[6] = zz - T(.5) * (xx + yy);
    Y[7] = s3 * x * z;
    Y[8] = T(.5) * s3 * (xx - yy);
  }
  if constexpr (ORDER >= 3) {
    const V side = T(4) * zz - xx - yy;
    Y[9] = s58 * y * (T(3) * xx - yy);
    Y[10] = s15 * x * y * z;
    Y[11] = s38 * y * side;
    Y[12] = z * (zz - T(1.5) * (xx + yy));
    Y[13] = s38 * x * side;
    Y[14] = T(.5) * s15 * z * (xx - yy);
    Y[15] = s58 * x * (xx - T(3) * yy);
  }
}

// The derivative by x, y, z, each taken for itself, of Σ d[m] Y[m].
template <class T, int ORDER>
MDPOT_INLINE void harmonics_back(Vector<T> x, Vector<T> y, Vector<T> z, const Vector<T>* d, Vector<T>& gx,
                                 Vector<T>& gy, Vector<T>& gz) {
  using V = Vector<T>;
  const T s3 = T(1.7320508075688772), s15 = T(3.872983346207417), s38 = T(0.6123724356957945),
          s58 = T(0.7905694150420949);
  gx = d[1];
  gy = d[2];
  gz = d[3];
  if constexpr (ORDER >= 2) {
    gx += s3 * (d[4] * y + d[7] * z + d[8] * x) - d[6] * x;
    gy += s3 * (d[4] * x + d[5] * z - d[8] * y) - d[6] * y;
    gz += s3 * (d[5] * y + d[7] * x) + T(2) * d[6] * z;
  }
  if constexpr (ORDER >= 3) {
    const V xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z;
    gx += s58 * (T(6) * d[9] * xy + T(3) * d[15] * (xx - yy)) + s15 * (d[10] * yz + d[14] * xz) - T(3) * d[12] * xz +
          s38 * (d[13] * (T(4) * zz - T(3) * xx - yy) - T(2) * d[11] * xy);
    gy += s58 * (T(3) * d[9] * (xx - yy) - T(6) * d[15] * xy) + s15 * (d[10] * xz - d[14] * yz) - T(3) * d[12] * yz +
          s38 * (d[11] * (T(4) * zz - xx - T(3) * yy) - T(2) * d[13] * xy);
    gz += s15 * (d[10] * xy + T(.5) * d[14] * (xx - yy)) + d[12] * (T(3) * zz - T(1.5) * (xx + yy)) +
          T(8) * s38 * (d[11] * yz + d[13] * xz);
  }
}

// Wall and pair energy of pairs of atoms and the derivative by their distance. `start` is where the wall begins, and
// coefficients + t stride are those of the term t.
template <class T>
MDPOT_INLINE void pair_energy(Vector<T> d, Vector<T> start, const T* coefficients, int terms, int stride, T decay,
                              T strength, T cutoff, Vector<T>& energy, Vector<T>& slope) {
  using V = Vector<T>;
  const V t = exp(-decay * d), inverse = T(1) / d;
  V value = all<T>(0), value_slope = all<T>(0), fade, fade_slope;
  for (int k = terms - 1; k >= 0; k--) {
    value = (value + load<T>(coefficients + k * stride)) * t;
    value_slope = value_slope * t - decay * value;
  }
  envelope<T>(reduced<T>(d, cutoff), cutoff, fade, fade_slope);
  V inside = start * inverse - T(1);
  inside = inside > T(0) ? inside : all<T>(0);
  energy = value * fade + strength * inside * inside * inside;
  slope = value_slope * fade + value * fade_slope - T(3) * strength * inside * inside * start * inverse * inverse;
}

// x σ(x) of n numbers, a multiple of LANES.
template <class T> void silu(const T* x, T* to, int n) {
  for (int k = 0; k < n; k += LANES<T>) {
    const Vector<T> a = load<T>(x + k);
    store<T>(to + k, a / (T(1) + exp(-a)));
  }
}

// d multiplied by the derivative of x σ(x).
template <class T> void silu_back(const T* x, T* d, int n) {
  for (int k = 0; k < n; k += LANES<T>) {
    const Vector<T> a = load<T>(x + k), s = T(1) / (T(1) + exp(-a));
    store<T>(d + k, load<T>(d + k) * s * (T(1) + a * (T(1) - s)));
  }
}

}  // namespace mdpot
