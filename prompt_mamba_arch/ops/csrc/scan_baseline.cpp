// The instruction set that every processor of the architecture has: SSE2 on x86-64, NEON on arm64.
#define SCAN_ISA scan_for_baseline
#define SCAN_LANES 8
#include "kernels.h"
SCAN_KERNELS(scan_baseline, "baseline")
