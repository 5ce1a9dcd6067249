// What the scan reads and writes: plain C structures, filled from Python (see cpu.py) and handed to every kernel.
//
//   for each image b, group k and channel c of the group, over the tokens t in the group's order:
//     delta = softplus?(raw delta + bias)        raw delta is given, or dt_weight[k, c, :] . delta[b, k, t, :]
//     h[n]  = exp(delta * A[n]) * h[n] + delta * x * B[b, k, t, n]
//     y     = (sum over n of C[b, k, t, n] * h[n] + D * x) * silu?(z)
//
// A group is a set of channels with B and C of its own. The 2-D scan's directions are groups, too: all of them read the
// same x (the view's group stride is 0), each in its own order, and their results are added up in the same y.
#pragma once
#include <stdint.h>

extern "C" {

// The address of [image][group][token][channel or state]; strides count numbers, not bytes. data == NULL: not given.
struct ScanView {
  void* data;
  int64_t image, group, token, channel;
};

enum ScanForm {
  SCAN_GENERAL = 0,  // A: one number for each channel and state
  SCAN_TIED = 1,     // A: one number a for each channel; A[n] = (n + 1) a, so powers of exp(delta a) do
  SCAN_SCALAR = 2,   // A: one number for each channel, the same for all states
};

struct ScanProblem {
  int64_t images, groups, channels /* of a group */, tokens;
  int32_t states, rank /* of the projection inside, or 0 */;
  int32_t form, softplus, add_groups /* into one y */, chunk /* tokens, at most SCAN_LONGEST_CHUNK */;
  ScanView x, delta, B, C, z, y;
  // dense, per group: dt_weight[channels][rank], bias[channels], A[channels][states or 1], D[channels]
  const void *dt_weight, *bias, *A, *D;
  const int32_t* order;  // [groups][tokens]: which token comes at each step; NULL: 0, 1, 2, ...
  void* starts;          // [images][groups][chunks][states][padded channels]: the state at each chunk's start, or NULL
  void* last;            // [images][groups][channels][states]: the state at the end, or NULL
};

struct ScanGradients {
  ScanView dy;             // given, as y
  const void* dlast;       // given, as last, or NULL
  ScanView dx, ddelta, dB, dC, dz;
  void *ddt_weight, *dbias, *dA, *dD;  // summed over images; NULL: not wanted
};

}  // extern "C"

constexpr int SCAN_LONGEST_CHUNK = 64;
// Channels in `starts` are padded to this, so that any instruction set can read what another has written.
constexpr int SCAN_CHANNEL_PADDING = 16;
static inline int64_t scan_padded(int64_t channels) {
  return (channels + SCAN_CHANNEL_PADDING - 1) / SCAN_CHANNEL_PADDING * SCAN_CHANNEL_PADDING;
}

// A part of a problem that one thread works on: some groups of one image, and some blocks (of `lanes` channels) of them.
struct ScanPart {
  int64_t image, first_group, end_group, first_block, end_block;
  // Backward only. The gradients of B, C and low-rank delta are sums over channels. So that they come out the same
  // whatever the number of threads, they are formed along a fixed binary tree: `leaves` leaves (a power of two) of
  // consecutive blocks, of which this part has an aligned subtree.
  int leaves, first_leaf, end_leaf;
  // [groups][tokens, in the group's order][rank + 2 states]: where the sums over this part's channels go
  void* sums;
  // [groups][channels][states or 1, rank, bias, D]: where this image's gradients of the parameters go
  void* parameters;
};

static inline int64_t scan_leaf_block(int64_t blocks, int leaf, int leaves) { return blocks * leaf / leaves; }

// One instruction set's kernels, for float and double. They return 0, or SCAN_NO_MEMORY.
constexpr int SCAN_NO_MEMORY = 2;
struct ScanKernels {
  const char* name;
  int lanes;
  int (*forward[2])(const ScanProblem&, const ScanPart&);
  int (*backward[2])(const ScanProblem&, const ScanGradients&, const ScanPart&);
  float (*multiply_adds)(int64_t rounds);  // SCAN_CHAINS vectors a round, nothing else: what the processor can do at most
};
constexpr int SCAN_CHAINS = 12;
