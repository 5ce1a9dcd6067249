// x86-64 with AVX2 and FMA (Intel since 2013, AMD since 2015). setup.py gives this file the flags for them.
#if defined(__x86_64__) && defined(__GNUC__)
#define SCAN_ISA scan_for_avx2
#define SCAN_LANES 8
#include "kernels.h"
SCAN_KERNELS(scan_avx2, "avx2")
#endif
