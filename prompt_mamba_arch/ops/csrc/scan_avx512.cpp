// x86-64 with AVX-512 (most servers since 2017, AMD's desktops since 2022). setup.py gives this file the flags for it.
#if defined(__x86_64__) && defined(__GNUC__)
#define SCAN_ISA scan_for_avx512
#define SCAN_LANES 16
#include "kernels.h"
SCAN_KERNELS(scan_avx512, "avx512")
#endif
