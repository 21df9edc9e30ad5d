// SPDX-License-Identifier: Apache-2.0

// Counts a process's allocations. Put in front of the C library's allocator with LD_PRELOAD, it lets `switchyard-bench
// count-steps` say how many a decoder step makes: see docs/benchmarks.md. Where SWITCHYARD_TRACE_ALLOCATIONS is set, what
// the counted steps allocate is also written to standard error, with the callers' addresses.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_ulong count;
static atomic_int traced;
static _Thread_local int inside;

/// How often memory has been requested so far.
unsigned long switchyard_allocations(void) { return atomic_load(&count); }

/// Whether callers are written from now on.
void switchyard_trace_allocations(int on) { atomic_store(&traced, on && getenv("SWITCHYARD_TRACE_ALLOCATIONS") != 0); }

static void note(void) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if (atomic_load_explicit(&traced, memory_order_relaxed) && !inside) {
        inside = 1;
        void *frames[12];
        const int depth = backtrace(frames, 12);
        backtrace_symbols_fd(frames + 2, depth - 2, STDERR_FILENO);
        if (write(STDERR_FILENO, "\n", 1) < 0) {
            atomic_store(&traced, 0);
        }
        inside = 0;
    }
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t number, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    note();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    note();
    return __libc_calloc(number, size);
}

void *realloc(void *pointer, size_t size) {
    note();
    return __libc_realloc(pointer, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    note();
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size) {
    note();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size) {
    note();
    *pointer = __libc_memalign(alignment, size);
    return *pointer ? 0 : 12;
}
