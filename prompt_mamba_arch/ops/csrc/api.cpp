// The library's functions, of plain C, and what does not depend on the instruction set: choosing one, splitting a problem
// into parts, running them on threads, and adding up what they leave.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "scan.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SCAN_WITH_X86
#endif
#if defined(_WIN32)
#define SCAN_EXPORT extern "C" __declspec(dllexport)
#else
#include <dlfcn.h>
#define SCAN_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

constexpr int INTERFACE = 2;  // cpu.py asks for the same: a library built from older sources is refused
constexpr int OK = 0, BAD_ORDER = 1;
constexpr int MOST_LEAVES = 8;

// ---- instruction sets -----------------------------------------------------------------------------------------------

}  // namespace

extern const ScanKernels scan_baseline;
#if defined(SCAN_WITH_X86)
extern const ScanKernels scan_avx2, scan_avx512;
#endif

namespace {

bool usable(const ScanKernels& kernels) {
#if defined(SCAN_WITH_X86)
  __builtin_cpu_init();
  if (&kernels == &scan_avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (&kernels == &scan_avx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
  return &kernels == &scan_baseline;
}

// best first
const ScanKernels* const ALL_KERNELS[] = {
#if defined(SCAN_WITH_X86)
    &scan_avx512, &scan_avx2,
#endif
    &scan_baseline};

const ScanKernels* best() {
  for (const ScanKernels* kernels : ALL_KERNELS)
    if (usable(*kernels)) return kernels;
  return &scan_baseline;
}

std::atomic<const ScanKernels*> chosen{nullptr};

const ScanKernels& kernels_in_use() {
  const ScanKernels* kernels = chosen.load();
  if (!kernels) chosen.store(kernels = best());
  return *kernels;
}

// ---- threads ----------------------------------------------------------------------------------------------------------

// The entry of GNU's OpenMP runtime (LLVM's and Intel's have it, too): runs body(data) on a team of threads.
using GompParallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// The runtime that torch has brought into the process, if it is of that kind. Its threads wait actively for a while
// after each of torch's own parallel loops; a second pool of threads would fight with them for the cores.
GompParallel runtime_of_torch() {
#if defined(_WIN32)
  return nullptr;
#else
  static const GompParallel found = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
#endif
}

// Calls body(i) for each i < count; a thread that is done takes the next i.
template <class Body> void for_each_part(int64_t count, int threads, const Body& body) {
  if (threads > count) threads = int(count);
  if (threads <= 1) {
    for (int64_t i = 0; i < count; i++) body(i);
    return;
  }
  struct Job {
    const Body& body;
    int64_t count;
    std::atomic<int64_t> next{0};
  } job{body, count};
  const auto work = [](void* data) {
    Job& job = *static_cast<Job*>(data);
    for (int64_t i; (i = job.next.fetch_add(1)) < job.count;) job.body(i);
  };
  if (const GompParallel parallel = runtime_of_torch()) {
    parallel(work, &job, unsigned(threads), 0);
    return;
  }
  std::vector<std::thread> team;
  for (int i = 1; i < threads; i++) team.emplace_back(work, &job);
  work(&job);
  for (std::thread& thread : team) thread.join();
}

// ---- parts --------------------------------------------------------------------------------------------------------------

// Groups that are added up in one y must stay together, one after the other; others can be taken apart.
int64_t independent_groups(const ScanProblem& p) { return p.add_groups ? 1 : p.groups; }

void set_groups(const ScanProblem& p, int64_t index, ScanPart& part) {
  part.first_group = p.add_groups ? 0 : index;
  part.end_group = p.add_groups ? p.groups : index + 1;
}

int largest_power_of_two(int64_t at_most) {
  int power = 1;
  while (power * 2 <= at_most) power *= 2;
  return power;
}

bool order_is_valid(const ScanProblem& p) {
  if (!p.order) return true;
  uint32_t largest = 0;  // negative numbers become large ones
  for (int64_t i = 0; i < p.groups * p.tokens; i++) {
    const uint32_t token = uint32_t(p.order[i]);
    largest = token > largest ? token : largest;
  }
  return int64_t(largest) < p.tokens;
}

int forward(const ScanProblem& p, int type, int threads) {
  const ScanKernels& kernels = kernels_in_use();
  const int64_t blocks = (p.channels + kernels.lanes - 1) / kernels.lanes, groups = independent_groups(p);
  int64_t pieces = 1;  // of an image's and group's channels
  if (p.images * groups % threads) pieces = threads < blocks ? threads : blocks;
  std::atomic<int> status{OK};
  for_each_part(p.images * groups * pieces, threads, [&](int64_t i) {
    ScanPart part{};
    const int64_t piece = i % pieces;
    part.image = i / pieces / groups;
    set_groups(p, i / pieces % groups, part);
    part.first_block = blocks * piece / pieces;
    part.end_block = blocks * (piece + 1) / pieces;
    const int result = kernels.forward[type](p, part);
    if (result != OK) status.store(result);
  });
  return status.load();
}

// Writes one token's sums to the gradients of low-rank delta, B and C.
template <class S> void scatter(const ScanProblem& p, const ScanGradients& g, int64_t image, int64_t group, int64_t t, const S* row) {
  const int64_t token = p.order ? p.order[group * p.tokens + t] : t;
  const auto put = [&](const ScanView& view, int count) {
    S* to = static_cast<S*>(view.data) + image * view.image + group * view.group + token * view.token;
    for (int i = 0; i < count; i++) to[i * view.channel] = row[i];
    row += count;
  };
  if (p.rank) put(g.ddelta, p.rank);
  put(g.dB, p.states);
  put(g.dC, p.states);
}

template <class S> int backward(const ScanProblem& p, const ScanGradients& g, int type, int threads) {
  const ScanKernels& kernels = kernels_in_use();
  const int64_t blocks = (p.channels + kernels.lanes - 1) / kernels.lanes, groups = independent_groups(p);
  const int leaves = largest_power_of_two(blocks + 1 < 2 * MOST_LEAVES ? (blocks + 1) / 2 : MOST_LEAVES);
  int pieces = 1;
  while (pieces < leaves && p.images * groups * pieces % threads && p.images * groups * pieces < 2 * threads) pieces *= 2;

  const int width = p.rank + 2 * p.states, rates = p.form == SCAN_GENERAL ? p.states : 1, per_channel = rates + p.rank + 2;
  const int64_t sums_size = p.groups * p.tokens * width, parameters_size = p.groups * p.channels * per_channel;
  // not vectors: these would be filled with zeros first
  const std::unique_ptr<S, decltype(&std::free)> sums_owner(
      static_cast<S*>(std::malloc(sizeof(S) * size_t(p.images * pieces * sums_size) + 1)), &std::free);
  const std::unique_ptr<S, decltype(&std::free)> parameters_owner(
      static_cast<S*>(std::malloc(sizeof(S) * size_t(p.images * parameters_size) + 1)), &std::free);
  S *const sums = sums_owner.get(), *const parameters = parameters_owner.get();
  if (!sums || !parameters) return SCAN_NO_MEMORY;

  std::atomic<int> status{OK};
  for_each_part(p.images * groups * pieces, threads, [&](int64_t i) {
    ScanPart part{};
    const int piece = int(i % pieces);
    part.image = i / pieces / groups;
    set_groups(p, i / pieces % groups, part);
    part.leaves = leaves;
    part.first_leaf = leaves / pieces * piece;
    part.end_leaf = leaves / pieces * (piece + 1);
    part.first_block = scan_leaf_block(blocks, part.first_leaf, leaves);
    part.end_block = scan_leaf_block(blocks, part.end_leaf, leaves);
    part.sums = sums + (part.image * pieces + piece) * sums_size;
    part.parameters = parameters + part.image * parameters_size;
    const int result = kernels.backward[type](p, g, part);
    if (result != OK) status.store(result);
  });
  if (status.load() != OK) return status.load();

  // the rest of the tree, then to where the gradients belong
  constexpr int64_t STRETCH = 1024;  // tokens
  const int64_t stretches = (p.tokens + STRETCH - 1) / STRETCH;
  for_each_part(p.images * p.groups * stretches, threads, [&](int64_t i) {
    const int64_t image = i / stretches / p.groups, group = i / stretches % p.groups, first = i % stretches * STRETCH;
    const int64_t end = first + STRETCH < p.tokens ? first + STRETCH : p.tokens;
    S* const piece = sums + image * pieces * sums_size + group * p.tokens * width;
    for (int step = 1; step < pieces; step *= 2)
      for (int q = 0; q < pieces; q += 2 * step)
        for (int64_t o = first * width; o < end * width; o++) piece[q * sums_size + o] += piece[(q + step) * sums_size + o];
    for (int64_t t = first; t < end; t++) scatter(p, g, image, group, t, piece + t * width);
  });

  for (int64_t c = 0; c < p.groups * p.channels; c++) {
    S* const sum = parameters + c * per_channel;
    for (int64_t image = 1; image < p.images; image++)
      for (int o = 0; o < per_channel; o++) sum[o] += sum[image * parameters_size + o];
    const S* from = sum;
    const auto put = [&](void* to, int count) {
      if (to) std::memcpy(static_cast<S*>(to) + c * count, from, sizeof(S) * size_t(count));
      from += count;
    };
    put(g.dA, rates);
    put(g.ddt_weight, p.rank);
    put(g.dbias, 1);
    put(g.dD, 1);
  }
  return OK;
}

bool is_empty(const ScanProblem& p) { return p.images == 0 || p.groups == 0 || p.channels == 0 || p.tokens == 0; }

}  // namespace

SCAN_EXPORT int pm_scan_interface(void) { return INTERFACE; }

SCAN_EXPORT const char* pm_scan_instruction_set(void) { return kernels_in_use().name; }

// For tests and measurements. Returns 0 if this processor or this build does not have it. "" chooses the best.
SCAN_EXPORT int pm_scan_use_instruction_set(const char* name) {
  if (!*name) {
    chosen.store(best());
    return 1;
  }
  for (const ScanKernels* kernels : ALL_KERNELS)
    if (!std::strcmp(kernels->name, name) && usable(*kernels)) {
      chosen.store(kernels);
      return 1;
    }
  return 0;
}

// For measurements: returns how many multiply-adds of single numbers it did, and nothing else.
SCAN_EXPORT int64_t pm_scan_multiply_adds(int64_t rounds) {
  const ScanKernels& kernels = kernels_in_use();
  volatile float result = kernels.multiply_adds(rounds);
  (void)result;
  return rounds * SCAN_CHAINS * kernels.lanes;
}

// type: 0 float, 1 double. Returns 0, 1: `order` holds a number that is no token, or 2: no memory.
SCAN_EXPORT int pm_scan_forward(const ScanProblem* problem, int type, int threads) {
  if (is_empty(*problem)) return OK;
  if (!order_is_valid(*problem)) return BAD_ORDER;
  return forward(*problem, type, threads < 1 ? 1 : threads);
}

SCAN_EXPORT int pm_scan_backward(const ScanProblem* problem, const ScanGradients* gradients, int type, int threads) {
  if (is_empty(*problem)) return OK;
  if (!order_is_valid(*problem)) return BAD_ORDER;
  if (threads < 1) threads = 1;
  return type ? backward<double>(*problem, *gradients, type, threads) : backward<float>(*problem, *gradients, type, threads);
}
