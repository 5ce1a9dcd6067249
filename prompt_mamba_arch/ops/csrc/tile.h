// The innermost loops: one chunk of tokens of one block of LANES channels, all states. A channel has a lane, so nothing
// is summed across lanes here except, in the backward pass, by the caller once a chunk.
//
// States are taken a few at a time (BATCH), and for these the loop runs over all tokens with the states in registers;
// everything that a chunk touches stays in the first-level cache.
#pragma once
#include "scan.h"
#include "simd.h"

namespace SCAN_ISA {

// [tokens] means tokens rows of LANES numbers, [states] likewise.
template <class S> struct Tile {
  int tokens, states;
  const S* delta;  // [tokens]
  const S* input;  // [tokens]  delta * x
  const S* B;      // tokens rows of `states` numbers, the same for all lanes
  const S* C;
  const S* rate;   // [states]  A * log2(e); [1] in the structured forms
  S* decay;        // [tokens]  structured forms: 2^(delta * rate)
  S* power;        // [tokens]  tied form, to work in: decay^(number of states done)
};

template <class S> static SCAN_INLINE void structured_decay(const Tile<S>& tile, bool tied) {
  const Vec<S> rate = load(tile.rate);
  for (int t = 0; t < tile.tokens; t += 4) {
    const int count = tile.tokens - t < 4 ? tile.tokens - t : 4;
    Vec<S> z[4];
    for (int k = 0; k < 4; k++) z[k] = load(tile.delta + (t + (k < count ? k : 0)) * LANES) * rate;
    exp2_many<true, 4>(z);
    for (int k = 0; k < count; k++) {
      store(tile.decay + (t + k) * LANES, z[k]);
      if (tied) store(tile.power + (t + k) * LANES, all(S(1)));
    }
  }
}

// a[j] = the decay at token t of states first .. first + BATCH - 1
template <class S, int FORM, bool SAFE, int BATCH>
static SCAN_INLINE void decays(const Tile<S>& tile, int t, const Vec<S>* rate, Vec<S>* a) {
  if (FORM == SCAN_GENERAL) {
    const Vec<S> delta = load(tile.delta + t * LANES);
    for (int j = 0; j < BATCH; j++) a[j] = delta * rate[j];
    exp2_many<SAFE, BATCH>(a);
  } else if (FORM == SCAN_SCALAR) {
    const Vec<S> q = load(tile.decay + t * LANES);
    for (int j = 0; j < BATCH; j++) a[j] = q;
  } else {
    // two chains of multiplications, of odd and of even powers: half as long as one
    const Vec<S> q = load(tile.decay + t * LANES);
    a[0] = load(tile.power + t * LANES) * q;
    if (BATCH > 1) {
      a[1] = a[0] * q;
      const Vec<S> q2 = q * q;
      for (int j = 2; j < BATCH; j++) a[j] = a[j - 2] * q2;
    }
    store(tile.power + t * LANES, a[BATCH - 1]);
  }
}

// ---- forward --------------------------------------------------------------------------------------------------------

// state: [states], at the chunk's start, becomes that at its end. y: [tokens], += sum over these states of C * state.
template <class S, int FORM, bool SAFE, int BATCH>
static SCAN_INLINE void forward_states(const Tile<S>& tile, int first, S* SCAN_RESTRICT state, S* SCAN_RESTRICT y) {
  const int tokens = tile.tokens, states = tile.states;
  const S *SCAN_RESTRICT input = tile.input, *SCAN_RESTRICT B = tile.B + first, *SCAN_RESTRICT C = tile.C + first;
  Vec<S> h[BATCH], rate[BATCH];
  for (int j = 0; j < BATCH; j++) {
    h[j] = load(state + (first + j) * LANES);
    if (FORM == SCAN_GENERAL) rate[j] = load(tile.rate + (first + j) * LANES);
  }
  for (int t = 0; t < tokens; t++) {
    Vec<S> a[BATCH];
    decays<S, FORM, SAFE, BATCH>(tile, t, rate, a);
    const Vec<S> x = load(input + t * LANES);
    Vec<S> even = load(y + t * LANES), odd = Vec<S>{};
    for (int j = 0; j < BATCH; j++) h[j] = a[j] * h[j] + x * all(B[t * states + j]);
    for (int j = 0; j < BATCH; j++) {
      if (BATCH > 2 && j % 2)
        odd = odd + h[j] * all(C[t * states + j]);
      else
        even = even + h[j] * all(C[t * states + j]);
    }
    store(y + t * LANES, BATCH > 2 ? even + odd : even);
  }
  for (int j = 0; j < BATCH; j++) store(state + (first + j) * LANES, h[j]);
}

template <class S, int FORM, bool SAFE, int BATCH>
static SCAN_INLINE int forward_batches(const Tile<S>& tile, int first, S* state, S* y) {
  for (; first + BATCH <= tile.states; first += BATCH) forward_states<S, FORM, SAFE, BATCH>(tile, first, state, y);
  return first;
}

template <class S> static void forward_tile(const Tile<S>& tile, int form, bool safe, S* state, S* y) {
  if (form == SCAN_GENERAL) {
    if (safe) {
      forward_batches<S, SCAN_GENERAL, true, 1>(tile, 0, state, y);
    } else {
      const int done = forward_batches<S, SCAN_GENERAL, false, 2>(tile, 0, state, y);
      forward_batches<S, SCAN_GENERAL, false, 1>(tile, done, state, y);
    }
  } else if (form == SCAN_TIED) {
    structured_decay(tile, true);
    int done = forward_batches<S, SCAN_TIED, false, 8>(tile, 0, state, y);
    done = forward_batches<S, SCAN_TIED, false, 4>(tile, done, state, y);
    forward_batches<S, SCAN_TIED, false, 1>(tile, done, state, y);
  } else {
    structured_decay(tile, false);
    int done = forward_batches<S, SCAN_SCALAR, false, 8>(tile, 0, state, y);
    done = forward_batches<S, SCAN_SCALAR, false, 4>(tile, done, state, y);
    forward_batches<S, SCAN_SCALAR, false, 1>(tile, done, state, y);
  }
}

// ---- backward -------------------------------------------------------------------------------------------------------
// With g = dLoss/dh:  g_t = C_t dy_t + a_(t+1) g_(t+1);  dC_t += dy_t h_t;  dB_t += g_t delta_t x_t;
// d(delta x)_t = sum_n g_t B_t;  d(delta A)_t = g_t a_t h_(t-1).

template <class S> struct TileGradients {
  const S* dy;      // [tokens]
  const S* start;   // the state at the chunk's start: `states` rows, start_stride numbers apart
  int64_t start_stride;
  S* carry;         // [states]  a g of the token after the chunk; becomes that of the chunk's first
  S* dinput;        // [tokens]  d(delta x)
  S* dexponent;     // [tokens]  general: sum over n of rate[n] d(delta A[n]); tied: of (n + 1) d(...); scalar: of d(...)
  S* dA;            // [states]  general form only: += sum over t of delta d(delta A[n])
  S *dB, *dC;       // tokens rows of `states` rows of LANES numbers: += each channel's part
  S* y;             // [tokens]  += sum over n of C h, or NULL
  // to work in
  S* h;             // tokens + 1 rows of BATCH rows of LANES numbers
  S* a;             // tokens     "
};
constexpr int MOST_BACKWARD_STATES = 4;  // BATCH at most

template <class S, int FORM, bool SAFE, int BATCH>
static SCAN_INLINE void backward_states(const Tile<S>& tile, const TileGradients<S>& grad, int first) {
  const int tokens = tile.tokens, states = tile.states;
  const S *SCAN_RESTRICT input = tile.input, *SCAN_RESTRICT delta = tile.delta, *SCAN_RESTRICT dy = grad.dy;
  const S *SCAN_RESTRICT B = tile.B + first, *SCAN_RESTRICT C = tile.C + first;
  S *SCAN_RESTRICT hs = grad.h, *SCAN_RESTRICT as = grad.a;
  S *SCAN_RESTRICT dinput = grad.dinput, *SCAN_RESTRICT dexponent = grad.dexponent;
  S *SCAN_RESTRICT dB = grad.dB + first * LANES, *SCAN_RESTRICT dC = grad.dC + first * LANES;

  Vec<S> h[BATCH], rate[BATCH];
  for (int j = 0; j < BATCH; j++) {
    h[j] = load(grad.start + (first + j) * grad.start_stride);
    store(hs + j * LANES, h[j]);
    rate[j] = FORM == SCAN_GENERAL ? load(tile.rate + (first + j) * LANES) : all(S(first + j + 1));
  }
  for (int t = 0; t < tokens; t++) {
    Vec<S> a[BATCH];
    decays<S, FORM, SAFE, BATCH>(tile, t, rate, a);
    const Vec<S> x = load(input + t * LANES);
    for (int j = 0; j < BATCH; j++) {
      h[j] = a[j] * h[j] + x * all(B[t * states + j]);
      if (FORM != SCAN_SCALAR) store(as + (t * BATCH + j) * LANES, a[j]);
      store(hs + ((t + 1) * BATCH + j) * LANES, h[j]);
    }
  }
  if (grad.y)
    for (int t = 0; t < tokens; t++) {
      Vec<S> y = load(grad.y + t * LANES);
      for (int j = 0; j < BATCH; j++) y = y + load(hs + ((t + 1) * BATCH + j) * LANES) * all(C[t * states + j]);
      store(grad.y + t * LANES, y);
    }

  Vec<S> carry[BATCH], dA[BATCH];
  for (int j = 0; j < BATCH; j++) {
    carry[j] = load(grad.carry + (first + j) * LANES);
    dA[j] = Vec<S>{};
  }
  for (int t = tokens - 1; t >= 0; t--) {
    const Vec<S> dyt = load(dy + t * LANES), x = load(input + t * LANES);
    const Vec<S> d = FORM == SCAN_GENERAL ? load(delta + t * LANES) : load(tile.decay + t * LANES);
    Vec<S> din = first ? load(dinput + t * LANES) : Vec<S>{}, dexp = first ? load(dexponent + t * LANES) : Vec<S>{};
    for (int j = 0; j < BATCH; j++) {
      const Vec<S> g = dyt * all(C[t * states + j]) + carry[j];
      S* dCt = dC + (t * states + j) * LANES;
      store(dCt, load(dCt) + dyt * load(hs + ((t + 1) * BATCH + j) * LANES));
      S* dBt = dB + (t * states + j) * LANES;
      store(dBt, load(dBt) + g * x);
      din = din + g * all(B[t * states + j]);
      carry[j] = g * (FORM == SCAN_SCALAR ? d : load(as + (t * BATCH + j) * LANES));
      const Vec<S> e = carry[j] * load(hs + (t * BATCH + j) * LANES);
      dexp = FORM == SCAN_SCALAR ? dexp + e : dexp + e * rate[j];
      if (FORM == SCAN_GENERAL) dA[j] = dA[j] + e * d;
    }
    store(dinput + t * LANES, din);
    store(dexponent + t * LANES, dexp);
  }
  for (int j = 0; j < BATCH; j++) {
    store(grad.carry + (first + j) * LANES, carry[j]);
    if (FORM == SCAN_GENERAL) {
      S* sum = grad.dA + (first + j) * LANES;
      store(sum, load(sum) + dA[j]);
    }
  }
}

template <class S, int FORM, bool SAFE, int BATCH>
static SCAN_INLINE int backward_batches(const Tile<S>& tile, const TileGradients<S>& grad, int first) {
  for (; first + BATCH <= tile.states; first += BATCH) backward_states<S, FORM, SAFE, BATCH>(tile, grad, first);
  return first;
}

template <class S> static void backward_tile(const Tile<S>& tile, const TileGradients<S>& grad, int form, bool safe) {
  if (form == SCAN_GENERAL) {
    if (safe) {
      backward_batches<S, SCAN_GENERAL, true, 1>(tile, grad, 0);
    } else {
      const int done = backward_batches<S, SCAN_GENERAL, false, MOST_BACKWARD_STATES>(tile, grad, 0);
      backward_batches<S, SCAN_GENERAL, false, 1>(tile, grad, done);
    }
  } else if (form == SCAN_TIED) {
    structured_decay(tile, true);
    const int done = backward_batches<S, SCAN_TIED, false, MOST_BACKWARD_STATES>(tile, grad, 0);
    backward_batches<S, SCAN_TIED, false, 1>(tile, grad, done);
  } else {
    structured_decay(tile, false);
    const int done = backward_batches<S, SCAN_SCALAR, false, MOST_BACKWARD_STATES>(tile, grad, 0);
    backward_batches<S, SCAN_SCALAR, false, 1>(tile, grad, done);
  }
}

}  // namespace SCAN_ISA
