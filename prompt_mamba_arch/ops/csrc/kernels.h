// The scan of a part of a problem: brings chunks of tokens into tiles, runs the tile loops, puts the results back.
// Included by one small source file for each instruction set, which defines SCAN_ISA, its name, and SCAN_LANES.
//
// For each group, for each chunk (backward: from the last to the first):
//   prepare  all channels of the part, token by token, so that memory is read in whole rows: delta, delta * x, D * x
//   tile     block by block: the recurrence
//   finish   the gate (backward: the chain rule back to x, delta and the parameters), and out in whole rows again
#pragma once
#include <stdlib.h>

#include "scan.h"
#include "simd.h"
#include "tile.h"

namespace SCAN_ISA {

constexpr int TOKENS_AT_ONCE = 4;  // as many softplus side by side hide each other's latency

// ---- memory to work in ----------------------------------------------------------------------------------------------

// One piece for a thread, kept between calls: a fresh one would be page-faulted in each time.
class Memory {
  char* piece = nullptr;
  size_t size = 0;

 public:
  ~Memory() { free(piece); }
  char* at_least(size_t wanted) {
    if (wanted > size) {
      free(piece);
      piece = static_cast<char*>(malloc(wanted + 64));
      size = piece ? wanted : 0;
    }
    return piece ? piece + (64 - reinterpret_cast<uintptr_t>(piece) % 64) : nullptr;  // at a cache line
  }
};

// Hands out arrays of a piece; a first round with base == nullptr adds up how much is needed.
template <class S> class Arrays {
  char* base;
  size_t used = 0;

 public:
  explicit Arrays(char* base) : base(base) {}
  S* take(int64_t count) {
    char* p = base ? base + used : nullptr;
    // 64: a cache line; 192 more, or arrays whose sizes are powers of two would share few cache sets
    used += (size_t(count) * sizeof(S) + 63) / 64 * 64 + 192;
    return reinterpret_cast<S*>(p);
  }
  size_t bytes() const { return used; }
};

// Numbers from one block of a tile to the next. Not a power of two, for the same reason.
static SCAN_INLINE int64_t block_stride(int tokens) { return int64_t(tokens) * LANES + 16; }

// ---- rows of tokens ---------------------------------------------------------------------------------------------------

// Where LANES neighbouring channels of each token of a chunk lie: in a tensor, or in a tile.
template <class S> struct Rows {
  S* base;
  int64_t token, block;
  const int32_t* order;
  S* at(int t) const { return base + (order ? int64_t(order[t]) : t) * token; }
};

template <class S> struct Chunk {
  const int32_t* order;  // of this chunk's tokens, or NULL: they are consecutive from `first`
  int64_t first;
  int tokens;
};

template <class S>
static Rows<S> rows_of(const ScanView& view, int64_t image, int64_t group, int64_t channel, const Chunk<S>& chunk) {
  if (!view.data) return {nullptr, 0, 0, nullptr};
  S* p = static_cast<S*>(view.data) + image * view.image + group * view.group + channel * view.channel;
  if (!chunk.order) p += chunk.first * view.token;
  return {p, view.token, LANES * view.channel, chunk.order};
}

template <class S> static Chunk<S> chunk_of(const ScanProblem& p, int64_t group, int64_t c) {
  const int64_t first = c * p.chunk, left = p.tokens - first;
  return {p.order ? p.order + group * p.tokens + first : nullptr, first, int(left < p.chunk ? left : p.chunk)};
}

// Copies `columns` channels, `channel` numbers apart, of each token to rows of `width` numbers; the rest become 0.
template <class S>
static void pack(const Rows<S>& rows, int64_t channel, int columns, int tokens, S* to, int width) {
  if (channel != 1 && rows.token == 1 && !rows.order) {
    if (columns < width) memset(to, 0, sizeof(S) * tokens * width);
    transpose(rows.base, channel, to, width, tokens, columns);
    return;
  }
  for (int t = 0; t < tokens; t++, to += width) {
    const S* from = rows.at(t);
    for (int c = 0; c < columns; c++) to[c] = from[c * channel];
    for (int c = columns; c < width; c++) to[c] = 0;
  }
}

// The other way; with `add`, to what is there.
template <class S>
static void unpack(const S* from, int width, const Rows<S>& rows, int64_t channel, int columns, int tokens, bool add) {
  if (channel != 1 && rows.token == 1 && !rows.order && !add) {
    transpose(from, width, rows.base, channel, columns, tokens);
    return;
  }
  for (int t = 0; t < tokens; t++, from += width) {
    S* to = rows.at(t);
    for (int c = 0; c < columns; c++) to[c * channel] = add ? to[c * channel] + from[c] : from[c];
  }
}

// The part's channels, in blocks of LANES, of which the first `direct` are read and written where they lie; the others
// (all of them when channels are not neighbours in memory, else what is left at the end) go through tiles.
struct Blocks {
  int64_t first_channel, channels, count, direct;

  Blocks(const ScanProblem& p, const ScanPart& part, bool neighbours) {
    first_channel = part.first_block * LANES;
    const int64_t end = part.end_block * LANES < p.channels ? part.end_block * LANES : p.channels;
    channels = end - first_channel;
    count = part.end_block - part.first_block;
    direct = neighbours ? channels / LANES : 0;
  }
  int columns(int64_t i) const { return int(channels - i * LANES < LANES ? channels - i * LANES : LANES); }
};

static bool neighbours(const ScanView& view) { return !view.data || view.channel == 1; }

template <class S>
static void pack_indirect(const Rows<S>& rows, const ScanView& view, const Blocks& blocks, int tokens, S* tile) {
  for (int64_t i = blocks.direct; i < blocks.count; i++) {
    Rows<S> block = rows;
    block.base += i * rows.block;
    pack(block, view.channel, blocks.columns(i), tokens, tile + i * block_stride(tokens), LANES);
  }
}

template <class S>
static void put_back(const S* tile, const Rows<S>& rows, const ScanView& view, const Blocks& blocks, int tokens, bool add) {
  if (blocks.direct)
    for (int t = 0; t < tokens; t++) {
      S* to = rows.at(t);
      const S* from = tile + t * LANES;
      for (int64_t i = 0; i < blocks.direct; i++, to += LANES, from += block_stride(tokens))
        store(to, add ? load(to) + load(from) : load(from));
    }
  for (int64_t i = blocks.direct; i < blocks.count; i++) {
    Rows<S> block = rows;
    block.base += i * rows.block;
    unpack(tile + i * block_stride(tokens), LANES, block, view.channel, blocks.columns(i), tokens, add);
  }
}

// Brings the rows of the chunk that comes next into the cache while this one's blocks are worked on, a share
// with each block: otherwise memory would idle now, and be waited for then. (A processor foresees regular steps only, and
// not across the pause.)
template <class S> class NextChunk {
  const ScanPart& part;
  const Blocks& blocks;
  int64_t group;
  Chunk<S> chunk{};  // of no tokens: nothing is to be fetched
  int from = 0, to = 0;

 public:
  NextChunk(const ScanProblem& p, const ScanPart& part, const Blocks& blocks, int64_t group, int64_t c)
      : part(part), blocks(blocks), group(group) {
    if (blocks.direct && c >= 0 && c * p.chunk < p.tokens) chunk = chunk_of<S>(p, group, c);
  }
  void select_share(int64_t i) {
    from = int(chunk.tokens * i / blocks.count);
    to = int(chunk.tokens * (i + 1) / blocks.count);
  }
  // Always inline: GCC takes a function that only prefetches for one that does nothing, and drops calls of it.
  SCAN_INLINE void fetch(const ScanView& view) const {
    fetch(view, blocks.first_channel, blocks.channels);
  }
  SCAN_INLINE void fetch(const ScanView& view, int64_t first, int64_t count) const {
    if (!view.data) return;
    const Rows<S> rows = rows_of(view, part.image, group, first, chunk);
    for (int t = from; t < to; t++) {
      const S* row = rows.at(t);
      for (int64_t c = 0; c < count; c += 64 / int64_t(sizeof(S))) SCAN_PREFETCH(row + c);
    }
  }
  // Low-rank delta, B and C in rows of their own
  SCAN_INLINE void fetch_projections(const ScanProblem& p) const {
    if (p.rank) fetch(p.delta, 0, p.rank), fetch(p.B, 0, p.states), fetch(p.C, 0, p.states);
  }
};

template <class S> static Rows<S> rows_of_tile(S* tile, int tokens) { return {tile, LANES, block_stride(tokens), nullptr}; }

// Calls body(rows, ...) for the direct blocks with the tensors' rows, and for the others with their tiles' rows.
#define SCAN_DIRECT_THEN_TILES(blocks, body) \
  if ((blocks).direct) body(0, (blocks).direct, true); \
  if ((blocks).direct < (blocks).count) body((blocks).direct, (blocks).count, false);

// ---- a group's parameters ---------------------------------------------------------------------------------------------

template <class S> struct Parameters {
  S *rate, *bias, *D, *dt_weight;  // per block: [states or 1], one row, one row, [rank] rows of LANES numbers
  int rates;

  void take(Arrays<S>& arrays, const ScanProblem& p, int64_t blocks) {
    rates = p.form == SCAN_GENERAL ? p.states : 1;
    rate = arrays.take(blocks * rates * LANES);
    bias = arrays.take(blocks * LANES);
    D = arrays.take(blocks * LANES);
    dt_weight = arrays.take(blocks * p.rank * LANES);
  }
  // Lanes without a channel get A = 0 and the like: their states stay 0.
  // Returns whether the simple exponential will do: no A is positive (no delta is negative after softplus).
  bool read(const ScanProblem& p, int64_t group, const Blocks& blocks) {
    bool simple = p.softplus;
    for (int64_t i = 0; i < blocks.count; i++)
      for (int l = 0; l < LANES; l++) {
        const int64_t c = blocks.first_channel + i * LANES + l, at = group * p.channels + c;
        const bool real = c < p.channels;
        for (int n = 0; n < rates; n++) {
          const S A = real ? static_cast<const S*>(p.A)[at * rates + n] : S(0);
          if (!(A <= 0)) simple = false;
          rate[(i * rates + n) * LANES + l] = A * S(1.4426950408889634);
        }
        bias[i * LANES + l] = real && p.bias ? static_cast<const S*>(p.bias)[at] : S(0);
        D[i * LANES + l] = real && p.D ? static_cast<const S*>(p.D)[at] : S(0);
        for (int r = 0; r < p.rank; r++)
          dt_weight[(i * p.rank + r) * LANES + l] = real ? static_cast<const S*>(p.dt_weight)[at * p.rank + r] : S(0);
      }
    return simple;
  }
};

// ---- prepare ------------------------------------------------------------------------------------------------------------

template <class S> struct Tiles {  // of all the part's blocks: [blocks][tokens][LANES]
  S *delta, *input, *y;
  S *slope, *x, *dy;  // backward
};

// Fills the tiles of blocks [from, to) at COUNT tokens from t on.
//   delta_rows: raw delta (rank == 0); low: rows of `rank` numbers, the low-rank delta
//   FORWARD: y = D * x, or what y_rows hold + D * x. Otherwise: x, the derivative of delta by raw delta, and dy = y_rows.
template <class S, int COUNT, bool FORWARD>
static SCAN_INLINE void prepare_tokens(const ScanProblem& p, const Parameters<S>& parameters, const Tiles<S>& tiles,
                                       int tokens, int t, int64_t from, int64_t to, const Rows<S>& x_rows,
                                       const Rows<S>& delta_rows, const S* low, const Rows<S>* y_rows) {
  const int rank = p.rank;
  const S *x_at[COUNT], *delta_at[COUNT], *y_at[COUNT];
  for (int k = 0; k < COUNT; k++) {
    x_at[k] = x_rows.at(t + k);
    delta_at[k] = rank ? nullptr : delta_rows.at(t + k);
    y_at[k] = y_rows ? y_rows->at(t + k) : nullptr;
  }
  for (int64_t i = from; i < to; i++) {
    const int64_t at = i * block_stride(tokens) + t * LANES;
    const Vec<S> bias = load(parameters.bias + i * LANES);
    Vec<S> delta[COUNT], slope[COUNT];
    if (rank) {
      for (int k = 0; k < COUNT; k++) delta[k] = bias;
      for (int r = 0; r < rank; r++) {
        const Vec<S> w = load(parameters.dt_weight + (i * rank + r) * LANES);
        for (int k = 0; k < COUNT; k++) delta[k] = delta[k] + w * all(low[(t + k) * rank + r]);
      }
    } else {
      for (int k = 0; k < COUNT; k++) delta[k] = load(delta_at[k] + i * delta_rows.block) + bias;
    }
    if (p.softplus)
      softplus_many<S, COUNT, !FORWARD>(delta, slope);
    else
      for (int k = 0; k < COUNT; k++) slope[k] = all(S(1));
    const Vec<S> D = load(parameters.D + i * LANES);
    for (int k = 0; k < COUNT; k++) {
      const Vec<S> x = load(x_at[k] + i * x_rows.block);
      store(tiles.delta + at + k * LANES, delta[k]);
      store(tiles.input + at + k * LANES, delta[k] * x);
      if (FORWARD) {
        store(tiles.y + at + k * LANES, y_rows ? load(y_at[k] + i * y_rows->block) + x * D : x * D);
      } else {
        store(tiles.dy + at + k * LANES, load(y_at[k] + i * y_rows->block));
        store(tiles.x + at + k * LANES, x);
        store(tiles.slope + at + k * LANES, slope[k]);
      }
    }
  }
}

template <class S, bool FORWARD>
static void prepare(const ScanProblem& p, const Parameters<S>& parameters, const Tiles<S>& tiles, int tokens,
                    int64_t from, int64_t to, const Rows<S>& x_rows, const Rows<S>& delta_rows, const S* low,
                    const Rows<S>* y_rows) {
  int t = 0;
  for (; t + TOKENS_AT_ONCE <= tokens; t += TOKENS_AT_ONCE) {
    prepare_tokens<S, TOKENS_AT_ONCE, FORWARD>(p, parameters, tiles, tokens, t, from, to, x_rows, delta_rows, low, y_rows);
  }
  for (; t < tokens; t++)
    prepare_tokens<S, 1, FORWARD>(p, parameters, tiles, tokens, t, from, to, x_rows, delta_rows, low, y_rows);
}

// ---- forward ------------------------------------------------------------------------------------------------------------

template <class S> static int forward(const ScanProblem& p, const ScanPart& part) {
  static thread_local Memory memory;
  const DenormalsAreZero denormals_are_zero;
  const Blocks blocks(p, part, neighbours(p.x) && neighbours(p.y) && neighbours(p.z) && (p.rank || neighbours(p.delta)));
  const int64_t padded = scan_padded(p.channels), chunks = (p.tokens + p.chunk - 1) / p.chunk;

  Parameters<S> parameters;
  Tiles<S> tiles;
  S *gate, *decay, *power, *B, *C, *low, *state;
  char* base = nullptr;
  for (int round = 0; round < 2; round++) {
    Arrays<S> arrays(base);
    const int64_t tile = blocks.count * block_stride(p.chunk);
    parameters.take(arrays, p, blocks.count);
    tiles.delta = arrays.take(tile), tiles.input = arrays.take(tile), tiles.y = arrays.take(tile);
    gate = arrays.take(p.z.data ? tile : 0);
    decay = arrays.take(p.chunk * LANES), power = arrays.take(p.chunk * LANES);
    B = arrays.take(p.chunk * p.states), C = arrays.take(p.chunk * p.states), low = arrays.take(p.chunk * p.rank);
    state = arrays.take(blocks.count * p.states * LANES);
    if (!base && !(base = memory.at_least(arrays.bytes()))) return SCAN_NO_MEMORY;
  }

  for (int64_t group = part.first_group; group < part.end_group; group++) {
    const bool simple = parameters.read(p, group, blocks);
    memset(state, 0, sizeof(S) * blocks.count * p.states * LANES);
    const bool add = p.add_groups && group > 0;
    for (int64_t c = 0; c < chunks; c++) {
      const Chunk<S> chunk = chunk_of<S>(p, group, c);
      const int tokens = chunk.tokens;
      pack(rows_of(p.B, part.image, group, 0, chunk), p.B.channel, p.states, tokens, B, p.states);
      pack(rows_of(p.C, part.image, group, 0, chunk), p.C.channel, p.states, tokens, C, p.states);
      const Rows<S> delta_rows = rows_of(p.delta, part.image, group, p.rank ? 0 : blocks.first_channel, chunk);
      if (p.rank) pack(delta_rows, p.delta.channel, p.rank, tokens, low, p.rank);
      const Rows<S> x_rows = rows_of(p.x, part.image, group, blocks.first_channel, chunk);
      const Rows<S> y_rows = rows_of(p.y, part.image, group, blocks.first_channel, chunk);

      // what is not read where it lies is packed where its result will be
      if (!p.rank) pack_indirect(delta_rows, p.delta, blocks, tokens, tiles.delta);
      pack_indirect(x_rows, p.x, blocks, tokens, tiles.input);
      if (add) pack_indirect(y_rows, p.y, blocks, tokens, tiles.y);
      const auto prepare_blocks = [&](int64_t from, int64_t to, bool direct) {
        const Rows<S> y = direct ? y_rows : rows_of_tile(tiles.y, tokens);
        prepare<S, true>(p, parameters, tiles, tokens, from, to, direct ? x_rows : rows_of_tile(tiles.input, tokens),
                         direct ? delta_rows : rows_of_tile(tiles.delta, tokens), low, add ? &y : nullptr);
      };
      SCAN_DIRECT_THEN_TILES(blocks, prepare_blocks)

      NextChunk<S> next(p, part, blocks, group, c + 1);
      S* start = nullptr;  // [states][padded]
      if (p.starts)
        start = static_cast<S*>(p.starts) +
                ((part.image * p.groups + group) * chunks + c) * p.states * padded + blocks.first_channel;
      for (int64_t i = 0; i < blocks.count; i++) {
        const int64_t at = i * block_stride(tokens);
        S* h = state + i * p.states * LANES;
        next.select_share(i);
        next.fetch(p.x), next.fetch(p.y), next.fetch(p.z);
        if (!p.rank) next.fetch(p.delta);
        next.fetch_projections(p);
        if (start)
          for (int n = 0; n < p.states; n++) {
            store(start + n * padded + i * LANES, load(h + n * LANES));
            // the padding beyond the last block, too: an operator's results should be the same every time
            if (i + 1 == blocks.count && part.end_block * LANES >= p.channels)
              for (int64_t rest = blocks.first_channel + (i + 1) * LANES; rest < padded; rest++)
                start[n * padded + rest - blocks.first_channel] = 0;
          }
        const Tile<S> tile = {tokens, p.states, tiles.delta + at, tiles.input + at, B, C,
                              parameters.rate + i * parameters.rates * LANES, decay, power};
        forward_tile(tile, p.form, !simple, h, tiles.y + at);
      }

      if (p.z.data) {
        const Rows<S> z_rows = rows_of(p.z, part.image, group, blocks.first_channel, chunk);
        pack_indirect(z_rows, p.z, blocks, tokens, gate);
        const auto apply_gate = [&](int64_t from, int64_t to, bool direct) {
          const Rows<S> rows = direct ? z_rows : rows_of_tile(gate, tokens);
          for (int t = 0; t < tokens; t++)
            for (int64_t i = from; i < to; i++) {
              const Vec<S> z = load(rows.at(t) + i * rows.block);
              S* y = tiles.y + i * block_stride(tokens) + t * LANES;
              store(y, load(y) * (z * sigmoid<S>(z)));
            }
        };
        SCAN_DIRECT_THEN_TILES(blocks, apply_gate)
      }
      put_back(tiles.y, y_rows, p.y, blocks, tokens, false);  // `add` has been done: y started from what was there
    }
    if (p.last)
      for (int64_t i = 0; i < blocks.count; i++)
        for (int l = 0; l < blocks.columns(i); l++) {
          const int64_t channel = blocks.first_channel + i * LANES + l;
          S* to = static_cast<S*>(p.last) + ((part.image * p.groups + group) * p.channels + channel) * p.states;
          for (int n = 0; n < p.states; n++) to[n] = state[(i * p.states + n) * LANES + l];
        }
  }
  return 0;
}

// ---- backward -----------------------------------------------------------------------------------------------------------

// This part's gradients of a group's parameters, per block: [states or 1], [rank], one row, one row
template <class S> struct ParameterGradients {
  S *A, *dt_weight, *bias, *D;
};

// The chain rule from the tile's results back to x, delta and the parameters, for block i.
//   in:  dinput, dexponent as tile.h leaves them, tiles.dy
//   out: dinput becomes dx, dexponent the gradient of raw delta; low-rank delta's gradient is added to dlow, whose rows
//        are `rank` rows of LANES numbers for each token
template <class S>
static SCAN_INLINE void finish_block(const ScanProblem& p, const Parameters<S>& parameters, const Tiles<S>& tiles,
                                     const ParameterGradients<S>& sums, int64_t i, int tokens, S* dinput, S* dexponent,
                                     const S* low, S* dlow) {
  const int64_t at = i * block_stride(tokens);
  const bool general = p.form == SCAN_GENERAL;
  const Vec<S> D = load(parameters.D + i * LANES);
  // d(delta A[n]) is weighted by log2(e) A[n] (general), or by A[n] / A[0]: back to a derivative by delta
  const Vec<S> by_delta = general ? all(S(0.6931471805599453)) : load(parameters.rate + i * LANES) * all(S(0.6931471805599453));
  Vec<S> dbias = load(sums.bias + i * LANES), dD = load(sums.D + i * LANES), dA{};
  dinput += at, dexponent += at;
  const S *dy = tiles.dy + at, *delta = tiles.delta + at, *x = tiles.x + at, *slope = tiles.slope + at;
  for (int t = 0; t < tokens * LANES; t += LANES) {
    const Vec<S> xt = load(x + t), dyt = load(dy + t), dint = load(dinput + t), dext = load(dexponent + t);
    const Vec<S> deltat = load(delta + t);
    const Vec<S> draw = (dint * xt + dext * by_delta) * load(slope + t);
    dD = dD + dyt * xt;
    dbias = dbias + draw;
    if (!general) dA = dA + dext * deltat;
    store(dinput + t, dint * deltat + dyt * D);
    store(dexponent + t, draw);
  }
  store(sums.bias + i * LANES, dbias);
  store(sums.D + i * LANES, dD);
  if (!general) store(sums.A + i * LANES, load(sums.A + i * LANES) + dA);
  for (int r = 0; r < p.rank; r++) {
    const Vec<S> w = load(parameters.dt_weight + (i * p.rank + r) * LANES);
    S* dw_at = sums.dt_weight + (i * p.rank + r) * LANES;
    Vec<S> dw = load(dw_at);
    for (int t = 0; t < tokens; t++) {
      const Vec<S> draw = load(dexponent + t * LANES);
      dw = dw + draw * all(low[t * p.rank + r]);
      S* d = dlow + (t * p.rank + r) * LANES;
      store(d, load(d) + draw * w);
    }
    store(dw_at, dw);
  }
}

template <class S> static int backward(const ScanProblem& p, const ScanGradients& g, const ScanPart& part) {
  static thread_local Memory memory;
  const DenormalsAreZero denormals_are_zero;
  const Blocks blocks(p, part,
                      neighbours(p.x) && neighbours(p.z) && neighbours(g.dy) && neighbours(g.dx) && neighbours(g.dz) &&
                          (p.rank || (neighbours(p.delta) && neighbours(g.ddelta))));
  const int64_t all_blocks = (p.channels + LANES - 1) / LANES, padded = scan_padded(p.channels);
  const int64_t chunks = (p.tokens + p.chunk - 1) / p.chunk;
  const int width = p.rank + 2 * p.states, leaves = part.end_leaf - part.first_leaf;

  Parameters<S> parameters;
  ParameterGradients<S> sums;
  Tiles<S> tiles;
  S *dinput, *dexponent, *gate, *decay, *power, *B, *C, *low, *carry, *dB, *dC, *dlow, *leaf_sums, *hs, *as;
  char* base = nullptr;
  for (int round = 0; round < 2; round++) {
    Arrays<S> arrays(base);
    const int64_t tile = blocks.count * block_stride(p.chunk);
    parameters.take(arrays, p, blocks.count);
    sums.A = arrays.take(blocks.count * parameters.rates * LANES);
    sums.dt_weight = arrays.take(blocks.count * p.rank * LANES);
    sums.bias = arrays.take(blocks.count * LANES), sums.D = arrays.take(blocks.count * LANES);
    tiles.delta = arrays.take(tile), tiles.input = arrays.take(tile), tiles.x = arrays.take(tile);
    tiles.slope = arrays.take(tile), tiles.y = arrays.take(p.z.data ? tile : 0);
    tiles.dy = arrays.take(tile), dinput = arrays.take(tile), dexponent = arrays.take(tile);
    gate = arrays.take(p.z.data ? tile : 0);
    decay = arrays.take(p.chunk * LANES), power = arrays.take(p.chunk * LANES);
    B = arrays.take(p.chunk * p.states), C = arrays.take(p.chunk * p.states), low = arrays.take(p.chunk * p.rank);
    carry = arrays.take(blocks.count * p.states * LANES);
    dB = arrays.take(p.chunk * p.states * LANES), dC = arrays.take(p.chunk * p.states * LANES);
    dlow = arrays.take(p.chunk * p.rank * LANES);
    leaf_sums = arrays.take(int64_t(leaves) * p.chunk * width);
    hs = arrays.take((p.chunk + 1) * MOST_BACKWARD_STATES * LANES), as = arrays.take(p.chunk * MOST_BACKWARD_STATES * LANES);
    if (!base && !(base = memory.at_least(arrays.bytes()))) return SCAN_NO_MEMORY;
  }

  for (int64_t group = part.first_group; group < part.end_group; group++) {
    const bool simple = parameters.read(p, group, blocks);
    memset(sums.A, 0, sizeof(S) * blocks.count * parameters.rates * LANES);
    memset(sums.dt_weight, 0, sizeof(S) * blocks.count * p.rank * LANES);
    memset(sums.bias, 0, sizeof(S) * blocks.count * LANES);
    memset(sums.D, 0, sizeof(S) * blocks.count * LANES);
    memset(carry, 0, sizeof(S) * blocks.count * p.states * LANES);
    if (g.dlast)
      for (int64_t i = 0; i < blocks.count; i++)
        for (int l = 0; l < blocks.columns(i); l++) {
          const int64_t channel = blocks.first_channel + i * LANES + l;
          const S* from =
              static_cast<const S*>(g.dlast) + ((part.image * p.groups + group) * p.channels + channel) * p.states;
          for (int n = 0; n < p.states; n++) carry[(i * p.states + n) * LANES + l] = from[n];
        }

    for (int64_t c = chunks - 1; c >= 0; c--) {
      const Chunk<S> chunk = chunk_of<S>(p, group, c);
      const int tokens = chunk.tokens;
      pack(rows_of(p.B, part.image, group, 0, chunk), p.B.channel, p.states, tokens, B, p.states);
      pack(rows_of(p.C, part.image, group, 0, chunk), p.C.channel, p.states, tokens, C, p.states);
      const Rows<S> delta_rows = rows_of(p.delta, part.image, group, p.rank ? 0 : blocks.first_channel, chunk);
      if (p.rank) pack(delta_rows, p.delta.channel, p.rank, tokens, low, p.rank);
      const Rows<S> x_rows = rows_of(p.x, part.image, group, blocks.first_channel, chunk);
      const Rows<S> dy_rows = rows_of(g.dy, part.image, group, blocks.first_channel, chunk);
      const Rows<S> z_rows = rows_of(p.z, part.image, group, blocks.first_channel, chunk);

      if (!p.rank) pack_indirect(delta_rows, p.delta, blocks, tokens, tiles.delta);
      pack_indirect(x_rows, p.x, blocks, tokens, tiles.x);
      pack_indirect(dy_rows, g.dy, blocks, tokens, tiles.dy);
      if (p.z.data) pack_indirect(z_rows, p.z, blocks, tokens, gate);
      const auto prepare_blocks = [&](int64_t from, int64_t to, bool direct) {
        const Rows<S> dys = direct ? dy_rows : rows_of_tile(tiles.dy, tokens);
        prepare<S, false>(p, parameters, tiles, tokens, from, to, direct ? x_rows : rows_of_tile(tiles.x, tokens),
                          direct ? delta_rows : rows_of_tile(tiles.delta, tokens), low, &dys);
        if (!p.z.data) return;
        const Rows<S> zs = direct ? z_rows : rows_of_tile(gate, tokens);
        for (int t = 0; t < tokens; t++)
          for (int64_t i = from; i < to; i++) {
            // y = ungated * z s with s = sigmoid(z); the gate's tile keeps dz / ungated
            const int64_t at = i * block_stride(tokens) + t * LANES;
            const Vec<S> z = load(zs.at(t) + i * zs.block), s = sigmoid<S>(z), dy = load(tiles.dy + at);
            store(tiles.dy + at, dy * z * s);
            store(gate + at, dy * s * (all(S(1)) + z * (all(S(1)) - s)));
            store(tiles.y + at, load(tiles.x + at) * load(parameters.D + i * LANES));
          }
      };
      SCAN_DIRECT_THEN_TILES(blocks, prepare_blocks)

      NextChunk<S> next(p, part, blocks, group, c - 1);
      for (int leaf = part.first_leaf; leaf < part.end_leaf; leaf++) {
        memset(dB, 0, sizeof(S) * tokens * p.states * LANES);
        memset(dC, 0, sizeof(S) * tokens * p.states * LANES);
        memset(dlow, 0, sizeof(S) * tokens * p.rank * LANES);
        const int64_t first = scan_leaf_block(all_blocks, leaf, part.leaves) - part.first_block;
        const int64_t end = scan_leaf_block(all_blocks, leaf + 1, part.leaves) - part.first_block;
        for (int64_t i = first; i < end; i++) {
          const int64_t at = i * block_stride(tokens);
          next.select_share(i);
          next.fetch(p.x), next.fetch(p.z), next.fetch(g.dy), next.fetch(g.dx), next.fetch(g.dz);
          if (!p.rank) next.fetch(p.delta), next.fetch(g.ddelta);
          next.fetch_projections(p);
          const Tile<S> tile = {tokens, p.states, tiles.delta + at, tiles.input + at, B, C,
                                parameters.rate + i * parameters.rates * LANES, decay, power};
          const S* start = static_cast<const S*>(p.starts) +
                           ((part.image * p.groups + group) * chunks + c) * p.states * padded + blocks.first_channel +
                           i * LANES;
          const TileGradients<S> grad = {tiles.dy + at, start, padded, carry + i * p.states * LANES, dinput + at,
                                         dexponent + at, sums.A + i * parameters.rates * LANES, dB, dC,
                                         p.z.data ? tiles.y + at : nullptr, hs, as};
          backward_tile(tile, grad, p.form, !simple);
          finish_block(p, parameters, tiles, sums, i, tokens, dinput, dexponent, low, dlow);
          if (p.z.data)
            for (int64_t o = at; o < at + tokens * LANES; o += LANES) store(gate + o, load(gate + o) * load(tiles.y + o));
        }
        // a token's row: low-rank delta, B, C
        S* of_leaf = leaf_sums + int64_t(leaf - part.first_leaf) * p.chunk * width;
        sum_lanes(dlow, int64_t(tokens) * p.rank, of_leaf);
        sum_lanes(dB, int64_t(tokens) * p.states, of_leaf + int64_t(tokens) * p.rank);
        sum_lanes(dC, int64_t(tokens) * p.states, of_leaf + int64_t(tokens) * (p.rank + p.states));
      }
      // up the tree
      for (int step = 1; step < leaves; step *= 2)
        for (int leaf = 0; leaf < leaves; leaf += 2 * step) {
          S* to = leaf_sums + int64_t(leaf) * p.chunk * width;
          const S* from = to + int64_t(step) * p.chunk * width;
          for (int o = 0; o < tokens * width; o++) to[o] += from[o];
        }
      S* row = static_cast<S*>(part.sums) + (group * p.tokens + chunk.first) * width;
      for (int t = 0; t < tokens; t++, row += width) {
        const S* from = leaf_sums;
        for (int r = 0; r < p.rank; r++) row[r] = from[t * p.rank + r];
        from += tokens * p.rank;
        for (int n = 0; n < p.states; n++) row[p.rank + n] = from[t * p.states + n];
        from += tokens * p.states;
        for (int n = 0; n < p.states; n++) row[p.rank + p.states + n] = from[t * p.states + n];
      }

      put_back(dinput, rows_of(g.dx, part.image, group, blocks.first_channel, chunk), g.dx, blocks, tokens,
               p.add_groups && group > 0);
      if (!p.rank)
        put_back(dexponent, rows_of(g.ddelta, part.image, group, blocks.first_channel, chunk), g.ddelta, blocks, tokens, false);
      if (p.z.data)
        put_back(gate, rows_of(g.dz, part.image, group, blocks.first_channel, chunk), g.dz, blocks, tokens, false);
    }

    const int per_channel = parameters.rates + p.rank + 2;
    for (int64_t i = 0; i < blocks.count; i++)
      for (int l = 0; l < blocks.columns(i); l++) {
        S* to = static_cast<S*>(part.parameters) +
                (group * p.channels + blocks.first_channel + i * LANES + l) * per_channel;
        for (int n = 0; n < parameters.rates; n++) *to++ = sums.A[(i * parameters.rates + n) * LANES + l];
        for (int r = 0; r < p.rank; r++) *to++ = sums.dt_weight[(i * p.rank + r) * LANES + l];
        *to++ = sums.bias[i * LANES + l];
        *to++ = sums.D[i * LANES + l];
      }
  }
  return 0;
}

// ---- for measurements ------------------------------------------------------------------------------------------------

static float multiply_adds(int64_t rounds) {
  volatile float factor = 0.5f, term = 1.f;  // not known to the compiler
  const Vec<float> a = all<float>(factor), b = all<float>(term);
  Vec<float> chain[SCAN_CHAINS];
  for (int k = 0; k < SCAN_CHAINS; k++) chain[k] = all(float(k));
  for (int64_t i = 0; i < rounds; i++)
    for (int k = 0; k < SCAN_CHAINS; k++) chain[k] = chain[k] * a + b;
  float sum = 0;
  for (int k = 0; k < SCAN_CHAINS; k++)
    for (int l = 0; l < LANES; l++) sum += chain[k][l];
  return sum;
}

}  // namespace SCAN_ISA

// Initialised by the compiler, not by code: code would run at load time, on processors that do not have this set, too.
#define SCAN_KERNELS(variable, name)                           \
  extern const ScanKernels variable;                           \
  const ScanKernels variable = {                               \
      name,                                                    \
      SCAN_ISA::LANES,                                         \
      {SCAN_ISA::forward<float>, SCAN_ISA::forward<double>},   \
      {SCAN_ISA::backward<float>, SCAN_ISA::backward<double>}, \
      SCAN_ISA::multiply_adds};
