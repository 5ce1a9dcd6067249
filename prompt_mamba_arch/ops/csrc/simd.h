// Vectors of LANES numbers and the few functions on them that the scan needs.
//
// GCC and Clang compile the vectors to whatever registers the instruction set of the translation unit has; no intrinsics.
// Other compilers get plain arrays and loops: slower, same results to rounding. (-DSCAN_PLAIN_ARRAYS tries that out.)
//
// Everything lives in namespace SCAN_ISA, a name of its own in each translation unit: inline functions and templates of
// equal name would otherwise be merged by the linker, and the baseline could end up with AVX2 code. For the same reason
// there is no standard C++ library in here.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(SCAN_PLAIN_ARRAYS)
#define SCAN_VECTORS 1
#define SCAN_INLINE inline __attribute__((always_inline))
#define SCAN_PREFETCH(address) __builtin_prefetch(address)
#else
#define SCAN_VECTORS 0
#define SCAN_INLINE inline
#define SCAN_PREFETCH(address) ((void)(address))
#endif
#define SCAN_RESTRICT __restrict

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace SCAN_ISA {

constexpr int LANES = SCAN_LANES;

#if SCAN_VECTORS

template <class S, int N> struct VectorType {
  typedef S aligned __attribute__((vector_size(N * sizeof(S))));
  typedef S anywhere __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S))));  // in memory
};
template <class S> using Vec = typename VectorType<S, LANES>::aligned;

template <class S> static SCAN_INLINE Vec<S> load(const S* p) {
  return *reinterpret_cast<const typename VectorType<S, LANES>::anywhere*>(p);
}
template <class S> static SCAN_INLINE void store(S* p, Vec<S> x) {
  *reinterpret_cast<typename VectorType<S, LANES>::anywhere*>(p) = x;
}
template <class S> static SCAN_INLINE Vec<S> all(S x) { return x - Vec<S>{}; }  // x - 0 is x, also for -0
template <class S> static SCAN_INLINE Vec<S> smaller(Vec<S> a, Vec<S> b) { return a < b ? a : b; }
template <class S> static SCAN_INLINE Vec<S> larger(Vec<S> a, Vec<S> b) { return a > b ? a : b; }
template <class S> static SCAN_INLINE Vec<S> if_positive(Vec<S> x, Vec<S> a, Vec<S> b) { return x > Vec<S>{} ? a : b; }

#else

template <class S> struct Vec {
  S lane[LANES];
  S& operator[](int i) { return lane[i]; }
  const S& operator[](int i) const { return lane[i]; }
};
#define SCAN_OPERATOR(op)                                                          \
  template <class S> SCAN_INLINE Vec<S> operator op(const Vec<S>& a, const Vec<S>& b) { \
    Vec<S> r;                                                                      \
    for (int i = 0; i < LANES; i++) r[i] = a[i] op b[i];                           \
    return r;                                                                      \
  }
SCAN_OPERATOR(+)
SCAN_OPERATOR(-)
SCAN_OPERATOR(*)
SCAN_OPERATOR(/)
#undef SCAN_OPERATOR

template <class S> static SCAN_INLINE Vec<S> load(const S* p) {
  Vec<S> r;
  memcpy(r.lane, p, sizeof r.lane);
  return r;
}
template <class S> static SCAN_INLINE void store(S* p, const Vec<S>& x) { memcpy(p, x.lane, sizeof x.lane); }
template <class S> static SCAN_INLINE Vec<S> all(S x) {
  Vec<S> r;
  for (int i = 0; i < LANES; i++) r[i] = x;
  return r;
}
template <class S> static SCAN_INLINE Vec<S> smaller(const Vec<S>& a, const Vec<S>& b) {
  Vec<S> r;
  for (int i = 0; i < LANES; i++) r[i] = a[i] < b[i] ? a[i] : b[i];
  return r;
}
template <class S> static SCAN_INLINE Vec<S> larger(const Vec<S>& a, const Vec<S>& b) {
  Vec<S> r;
  for (int i = 0; i < LANES; i++) r[i] = a[i] > b[i] ? a[i] : b[i];
  return r;
}
template <class S> static SCAN_INLINE Vec<S> if_positive(const Vec<S>& x, const Vec<S>& a, const Vec<S>& b) {
  Vec<S> r;
  for (int i = 0; i < LANES; i++) r[i] = x[i] > 0 ? a[i] : b[i];
  return r;
}

#endif

// ---- 4 x 4 transposes: the same few instructions on every instruction set ------------------------------------------

#if SCAN_VECTORS
template <class S> using Four = typename VectorType<S, 4>::aligned;
template <class S> static SCAN_INLINE Four<S> load4(const S* p) {
  return *reinterpret_cast<const typename VectorType<S, 4>::anywhere*>(p);
}
template <class S> static SCAN_INLINE void store4(S* p, Four<S> x) {
  *reinterpret_cast<typename VectorType<S, 4>::anywhere*>(p) = x;
}
#if defined(__clang__) || __GNUC__ >= 12
#define SCAN_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
template <class S> struct IndexType { typedef int32_t type; };
template <> struct IndexType<double> { typedef int64_t type; };
#define SCAN_SHUFFLE(a, b, ...) \
  __builtin_shuffle(a, b, typename VectorType<typename IndexType<S>::type, 4>::aligned{__VA_ARGS__})
#endif
template <class S> static SCAN_INLINE void turn4(Four<S>* r) {
  const Four<S> a = SCAN_SHUFFLE(r[0], r[1], 0, 4, 1, 5), b = SCAN_SHUFFLE(r[2], r[3], 0, 4, 1, 5);
  const Four<S> c = SCAN_SHUFFLE(r[0], r[1], 2, 6, 3, 7), d = SCAN_SHUFFLE(r[2], r[3], 2, 6, 3, 7);
  r[0] = SCAN_SHUFFLE(a, b, 0, 1, 4, 5), r[1] = SCAN_SHUFFLE(a, b, 2, 3, 6, 7);
  r[2] = SCAN_SHUFFLE(c, d, 0, 1, 4, 5), r[3] = SCAN_SHUFFLE(c, d, 2, 3, 6, 7);
}
#endif

// to[i * to_stride + j] = from[j * from_stride + i] for i < rows, j < columns
template <class S>
static void transpose(const S* from, int64_t from_stride, S* to, int64_t to_stride, int rows, int columns) {
  int rows4 = 0, columns4 = 0;
#if SCAN_VECTORS
  rows4 = rows / 4 * 4, columns4 = columns / 4 * 4;
  for (int j = 0; j < columns4; j += 4)
    for (int i = 0; i < rows4; i += 4) {
      Four<S> r[4];
      for (int k = 0; k < 4; k++) r[k] = load4(from + (j + k) * from_stride + i);
      turn4<S>(r);
      for (int k = 0; k < 4; k++) store4(to + (i + k) * to_stride + j, r[k]);
    }
#endif
  for (int j = 0; j < columns; j++)
    for (int i = j < columns4 ? rows4 : 0; i < rows; i++) to[i * to_stride + j] = from[j * from_stride + i];
}

// sums[r] = the sum of the LANES numbers of row r
template <class S> static void sum_lanes(const S* row, int64_t rows, S* sums) {
  int64_t r = 0;
#if SCAN_VECTORS
  for (; r + 4 <= rows; r += 4) {
    Four<S> s[4];
    for (int k = 0; k < 4; k++) {
      s[k] = load4(row + (r + k) * LANES);
      for (int l = 4; l < LANES; l += 4) s[k] = s[k] + load4(row + (r + k) * LANES + l);
    }
    turn4<S>(s);
    store4(sums + r, (s[0] + s[1]) + (s[2] + s[3]));
  }
#endif
  for (; r < rows; r++) {  // in the same order as above
    S s[4] = {0, 0, 0, 0};
    for (int l = 0; l < LANES; l++) s[l % 4] += row[r * LANES + l];
    sums[r] = (s[0] + s[1]) + (s[2] + s[3]);
  }
}

// ---- exponentials ---------------------------------------------------------------------------------------------------
// The _many functions take K vectors at once and are written operation by operation, so that neighbouring instructions
// do not depend on each other: the chain of one exponential is some 40 cycles long, longer than a core looks ahead.

// z[k] = 2^z[k]. SAFE: any z, saturating at 2^-126 and 2^126; else z must be <= 0.
// float: 2^z = 2^n 2^f with n = round(z), and a polynomial for 2^f that is exactly 1 at f = 0, so that 1 - 2^z keeps its
// digits for slow decays (relative error 9e-8).
template <bool SAFE, int K> static SCAN_INLINE void exp2_many(Vec<float>* z) {
#if SCAN_VECTORS
  typedef typename VectorType<uint32_t, LANES>::aligned Bits;
  const Vec<float> magic = all(12582912.f);  // 1.5 * 2^23: adding it rounds to a whole number, found in the low bits
  if (SAFE) {
    for (int k = 0; k < K; k++) z[k] = larger<float>(z[k], all(-126.f));
    for (int k = 0; k < K; k++) z[k] = smaller<float>(z[k], all(126.f));
  } else {
    const Bits lowest = (Bits)all(-126.f);  // among negative numbers, larger bits are smaller numbers
    for (int k = 0; k < K; k++) {
      const Bits bits = (Bits)z[k];
      z[k] = (Vec<float>)(bits < lowest ? bits : lowest);
    }
  }
  Vec<float> n[K], p[K];
  for (int k = 0; k < K; k++) n[k] = z[k] + magic;
  for (int k = 0; k < K; k++) z[k] = z[k] - (n[k] - magic);
  for (int k = 0; k < K; k++) p[k] = all(0.00132647271f) * z[k] + all(0.00967151286f);
  for (int k = 0; k < K; k++) p[k] = p[k] * z[k] + all(0.0555073375f);
  for (int k = 0; k < K; k++) p[k] = p[k] * z[k] + all(0.240222421f);
  for (int k = 0; k < K; k++) p[k] = p[k] * z[k] + all(0.693146978f);
  for (int k = 0; k < K; k++) p[k] = p[k] * z[k] + all(1.f);
  for (int k = 0; k < K; k++) z[k] = (Vec<float>)((Bits)p[k] + ((Bits)n[k] << 23));  // p * 2^n
#else
  for (int k = 0; k < K; k++)
    for (int i = 0; i < LANES; i++) z[k][i] = exp2f(z[k][i]);
#endif
}
template <bool SAFE, int K> static SCAN_INLINE void exp2_many(Vec<double>* z) {
  for (int k = 0; k < K; k++)
    for (int i = 0; i < LANES; i++) z[k][i] = exp2(z[k][i]);
}

// e[k] = log(1 + e[k]) for 0 <= e <= 1: 2 atanh(s), s = e / (2 + e); relative error 1e-7
template <int K> static SCAN_INLINE void log1p_many(Vec<float>* e) {
  Vec<float> square[K], p[K];
  for (int k = 0; k < K; k++) e[k] = e[k] / (e[k] + all(2.f));
  for (int k = 0; k < K; k++) square[k] = e[k] * e[k];
  for (int k = 0; k < K; k++) p[k] = all(0.140890877f) * square[k] + all(0.139803216f);
  for (int k = 0; k < K; k++) p[k] = p[k] * square[k] + all(0.200124534f);
  for (int k = 0; k < K; k++) p[k] = p[k] * square[k] + all(0.333331574f);
  for (int k = 0; k < K; k++) p[k] = p[k] * square[k] + all(1.f);
  for (int k = 0; k < K; k++) e[k] = (e[k] + e[k]) * p[k];
}
template <int K> static SCAN_INLINE void log1p_many(Vec<double>* e) {
  for (int k = 0; k < K; k++)
    for (int i = 0; i < LANES; i++) e[k][i] = log1p(e[k][i]);
}

template <class S, int K> static SCAN_INLINE void exp_minus_abs(const Vec<S>* x, Vec<S>* e) {
  for (int k = 0; k < K; k++) e[k] = smaller<S>(x[k], Vec<S>{} - x[k]) * all(S(1.4426950408889634));
  exp2_many<false, K>(e);
}

// x[k] = log(1 + exp(x[k])); with SLOPE, slope[k] is its derivative
template <class S, int K, bool SLOPE> static SCAN_INLINE void softplus_many(Vec<S>* x, Vec<S>* slope) {
  Vec<S> e[K];
  exp_minus_abs<S, K>(x, e);
  if (SLOPE)
    for (int k = 0; k < K; k++) {
      const Vec<S> r = all(S(1)) / (all(S(1)) + e[k]);
      slope[k] = if_positive<S>(x[k], r, e[k] * r);
    }
  log1p_many<K>(e);
  for (int k = 0; k < K; k++) x[k] = larger<S>(x[k], Vec<S>{}) + e[k];
}

template <class S> static SCAN_INLINE Vec<S> sigmoid(Vec<S> x) {
  Vec<S> e;
  exp_minus_abs<S, 1>(&x, &e);
  const Vec<S> r = all(S(1)) / (all(S(1)) + e);
  return if_positive<S>(x, r, e * r);
}

// ---- denormal numbers -------------------------------------------------------------------------------------------------
// A state that decays towards zero passes through denormals, each of which costs a hundred cycles. While this object
// lives, the thread takes them for zero; the setting is per thread, and restored.
class DenormalsAreZero {
#if defined(__SSE2__) || defined(_M_X64)
  unsigned saved = _mm_getcsr();

 public:
  DenormalsAreZero() { _mm_setcsr(saved | 0x8040); }
  ~DenormalsAreZero() { _mm_setcsr(saved); }
#elif defined(__aarch64__) && defined(__GNUC__)
  uint64_t saved;

 public:
  DenormalsAreZero() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | (uint64_t(1) << 24)));
  }
  ~DenormalsAreZero() { __asm__ volatile("msr fpcr, %0" : : "r"(saved)); }
#endif
};

}  // namespace SCAN_ISA
