// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__)
#include <unistd.h>
#endif

/// What a processor that does not say is taken to have.
static const size_t usual_bytes[3] = {(size_t)32 << 10, (size_t)512 << 10, 0};

#if defined(__x86_64__)
/// Reads the list of caches: leaf 4 of Intel's processors, 8000001Dh, which has the same fields, of AMD's.
static void read_caches(size_t bytes[3]) {
    unsigned a, b, c, d;
    unsigned leaf = 4;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c >> 22 & 1)) {
        leaf = 0x8000001D;
    }
    for (unsigned index = 0; index < 16; index++) {
        if (!__get_cpuid_count(leaf, index, &a, &b, &c, &d) || (a & 31) == 0) {
            return;
        }
        const unsigned level = a >> 5 & 7;
        // Type 2 holds instructions alone.
        if ((a & 31) != 2 && level >= 1 && level <= 3) {
            bytes[level - 1] = (size_t)((b >> 22) + 1) * ((b >> 12 & 1023) + 1) * ((b & 4095) + 1) * ((size_t)c + 1);
        }
    }
}
#elif defined(__linux__) && defined(_SC_LEVEL1_DCACHE_SIZE)
static void read_caches(size_t bytes[3]) {
    const int names[3] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    for (int level = 0; level < 3; level++) {
        const long size = sysconf(names[level]);
        bytes[level] = size > 0 ? (size_t)size : 0;
    }
}
#else
static void read_caches(size_t bytes[3]) { (void)bytes; }
#endif

size_t ck_cache_bytes(int level) {
    // Asking takes microseconds in a virtual machine. Threads that ask at the same time store the same.
    static _Atomic size_t known[3];
    if (atomic_load_explicit(&known[0], memory_order_acquire) == 0) {
        size_t bytes[3] = {0, 0, 0};
        read_caches(bytes);
        for (int index = 2; index >= 0; index--) {
            const size_t size = bytes[index] ? bytes[index] : usual_bytes[index];
            atomic_store_explicit(&known[index], size, memory_order_release);
        }
    }
    return level >= 1 && level <= 3 ? atomic_load_explicit(&known[level - 1], memory_order_relaxed) : 0;
}

/// What `ck_set_near_slices` has set.
static _Atomic int near_slices = -1;

int ck_prefers_near_slices(void) {
    const int set = atomic_load_explicit(&near_slices, memory_order_relaxed);
    if (set >= 0) {
        return set;
    }
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_is("amd") ? 1 : 0;
#else
    return 0;
#endif
}

void ck_set_near_slices(int preferred) { atomic_store_explicit(&near_slices, preferred, memory_order_relaxed); }
