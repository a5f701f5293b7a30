// Which instruction sets this processor, and the operating system on it, run. Of all libraries the one for every
// processor is asked, so this file uses nothing beyond that.
#include <cstring>

#include "mdpot_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

namespace {

// What the system keeps for a thread when it switches to another; bits 1 and 2: up to AVX, 5 to 7: AVX-512.
unsigned kept_registers() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

struct Features {
  bool avx2 = false, avx512 = false;  // all of x86-64-v3 and of x86-64-v4

  Features() {
    unsigned a, b, c, d, b7, c7, extended;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const unsigned fma = 1u << 12, movbe = 1u << 22, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if (!has(c, fma | movbe | osxsave | avx | f16c)) return;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d) || !__get_cpuid(0x80000001, &a, &b, &extended, &d)) return;
    const unsigned bmi1 = 1u << 3, avx2_ = 1u << 5, bmi2 = 1u << 8, lzcnt = 1u << 5;
    const unsigned kept = kept_registers();
    avx2 = has(b7, bmi1 | avx2_ | bmi2) && has(extended, lzcnt) && has(kept, 0x06);
    const unsigned f = 1u << 16, dq = 1u << 17, cd = 1u << 28, bw = 1u << 30, vl = 1u << 31;
    avx512 = avx2 && has(b7, f | dq | cd | bw | vl) && has(kept, 0xe6);
  }
};

}  // namespace

extern "C" int32_t mdpot_kernels_runs(const char *instructions) {
  static const Features features;
  if (std::strcmp(instructions, "avx512") == 0) return features.avx512;
  if (std::strcmp(instructions, "avx2") == 0) return features.avx2;
  return std::strcmp(instructions, "baseline") == 0;
}
#else
extern "C" int32_t mdpot_kernels_runs(const char *instructions) { return std::strcmp(instructions, "neon") == 0; }
#endif
