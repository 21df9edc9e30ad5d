// SPDX-License-Identifier: Apache-2.0

// Measures products of few rows, with weights that are in no cache, beside the two limits of the machine: the rate at which a
// loop reads the same memory, and the rate of multiply-adds whose operands are in registers. Builds of CKernels are loaded as
// libraries and measured in turn, round after round, within the same seconds as the limits. docs/benchmarks.md says how to
// build it.

#define _GNU_SOURCE
#include "CKernels.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("clang loop unroll(full)")
#ifndef CLOCK
#define CLOCK CLOCK_MONOTONIC
#endif
#define MOST_THREADS 64
#define MOST_ROUNDS 99
#define MOST_BUILDS 4
#define MOST_ROWS 512

enum { INT8 = 3 };

typedef struct {
    const char *name;
    __typeof__(ck_product) *product;
    __typeof__(ck_product_int8) *product_int8;
    __typeof__(ck_quantize_rows) *quantize;
    __typeof__(ck_read) *read;
    __typeof__(ck_int8_kernel) *int8_kernel;
} build;

static build builds[MOST_BUILDS];
static int build_count;
static int level;
static int threads = 1;
static size_t outputs = 3072, inputs = 768;
static double seconds = 0.03;

static char *weights;
static size_t weight_bytes = (size_t)1 << 30;
static size_t next_copy;
static float *x, *y, *scales, *row_scales;
static int32_t *compensation;
static char *q;
static float *scratch[MOST_THREADS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// MARK: - Threads, which spin between two pieces of work

static void (*work)(int thread);
static _Atomic long started;
static _Atomic int finished;

static void *help(void *argument) {
    const int thread = (int)(long)argument;
    ck_bind_thread(thread);
    for (long seen = 0;; seen++) {
        while (atomic_load_explicit(&started, memory_order_acquire) == seen) {
            ck_pause();
        }
        work(thread);
        atomic_fetch_add_explicit(&finished, 1, memory_order_release);
    }
    return NULL;
}

static void share(void (*body)(int thread)) {
    work = body;
    atomic_store(&finished, 0);
    atomic_fetch_add_explicit(&started, 1, memory_order_release);
    body(0);
    while (atomic_load_explicit(&finished, memory_order_acquire) < threads - 1) {
        ck_pause();
    }
}

// MARK: - What is measured

static const build *current;
static size_t rows;
static int type;

static size_t panel_count(void) { return (outputs + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS; }
static size_t element(int of) { return of == INT8 ? 1 : of == CK_TYPE_BF16 ? 2 : 4; }
static size_t copy_bytes(void) { return panel_count() * CK_PANEL_COLUMNS * inputs * element(type); }
static size_t q_stride(void) { return ((2 * inputs + 63) / 64 | 1) * 64; }
static char *copy(void) { return weights + next_copy % (weight_bytes / copy_bytes()) * copy_bytes(); }

static void quantize(int thread) {
    const size_t first = rows * (size_t)thread / (size_t)threads, last = rows * (size_t)(thread + 1) / (size_t)threads;
    current->quantize(level, x + first * inputs, inputs, inputs, last - first, q + first * q_stride(), q_stride(),
                      row_scales + first);
}

static void multiply(int thread) {
    const size_t panels = panel_count();
    const size_t first = panels * (size_t)thread / (size_t)threads, last = panels * (size_t)(thread + 1) / (size_t)threads;
    if (type == INT8) {
        current->product_int8(level, copy(), scales, compensation, inputs, outputs, first, last, q, q_stride(), row_scales,
                              rows, y, outputs, 0);
    } else {
        current->product(level, copy(), type, inputs, outputs, first, last, x, inputs, rows, y, outputs, 0,
                         scratch[thread]);
    }
}

static void read_copy(int thread) {
    const size_t pages = copy_bytes() / 4096;
    const size_t first = pages * (size_t)thread / (size_t)threads, last = pages * (size_t)(thread + 1) / (size_t)threads;
    (void)builds[0].read(level, copy() + first * 4096, (last - first) * 4096);
}

/// Multiply-adds of 1024 turns of the loops below, by each thread.
static double turn_operations;

#if defined(__x86_64__)
#define LOOP(target_set, vector, zero, step, operations)                                                               \
    __attribute__((target(target_set), noinline)) static void loop(int thread) {                                       \
        vector sums[12], a = zero, b = zero;                                                                           \
        (void)thread;                                                                                                  \
        turn_operations = 12 * operations;                                                                             \
        UNROLL for (int i = 0; i < 12; i++) { sums[i] = zero; }                                                        \
        for (int turn = 0; turn < 1024; turn++) {                                                                      \
            __asm__ volatile("" : "+v"(a), "+v"(b));                                                                   \
            UNROLL for (int i = 0; i < 12; i++) { sums[i] = step; }                                                    \
        }                                                                                                              \
        UNROLL for (int i = 0; i < 12; i++) { __asm__ volatile("" : : "v"(sums[i])); }                                 \
    }

/// The same value, of which the compiler does not know that, so that it computes with it each time.
__attribute__((target("avx2"), always_inline)) static inline __m256i opaque(__m256i value) {
    __asm__ volatile("" : "+v"(value));
    return value;
}

#define loop limit_f32_avx2
LOOP("avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, sums[i]), 16)
#undef loop
#define loop limit_f32_avx512
LOOP("avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, sums[i]), 32)
#undef loop
#define loop limit_int8_avx2
LOOP("avx2", __m256i, _mm256_setzero_si256(),
     _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(opaque(b), a)), opaque(b))), 64)
#undef loop
#define loop limit_int8_vnni
LOOP("avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sums[i], a, b), 128)
#undef loop
#endif

/// Products of registers with registers.
static void multiply_registers(int thread) {
#if defined(__x86_64__)
    if (type == INT8) {
        if (builds[0].int8_kernel(level) == CK_INT8_VNNI) {
            limit_int8_vnni(thread);
        } else {
            limit_int8_avx2(thread);
        }
    } else if (level == CK_LEVEL_AVX512) {
        limit_f32_avx512(thread);
    } else {
        limit_f32_avx2(thread);
    }
#else
    (void)thread;
    turn_operations = 1e9;
#endif
}

/// Seconds of one call, over as many as take the time wanted.
static double time_of(void (*body)(void)) {
    const double start = now();
    for (int calls = 1;; calls++) {
        body();
        next_copy++;
        const double passed = now() - start;
        if (passed >= seconds) {
            return passed / calls;
        }
    }
}

static void read_all(void) { share(read_copy); }
static void limit_all(void) { share(multiply_registers); }
static void product_all(void) {
    if (type == INT8) {
        share(quantize);
    }
    share(multiply);
}

// MARK: - The program

static int ascending(const void *a, const void *b) {
    const double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library || build_count == MOST_BUILDS) {
        fprintf(stderr, "%s\n", library ? "too many libraries" : dlerror());
        exit(2);
    }
    build *one = &builds[build_count++];
    one->name = path;
    *(void **)&one->product = dlsym(library, "ck_product");
    *(void **)&one->product_int8 = dlsym(library, "ck_product_int8");
    *(void **)&one->quantize = dlsym(library, "ck_quantize_rows");
    *(void **)&one->read = dlsym(library, "ck_read");
    *(void **)&one->int8_kernel = dlsym(library, "ck_int8_kernel");
}

static void *memory(size_t bytes) {
    const size_t large = (size_t)2 << 20;
    void *block = aligned_alloc(large, (bytes + 4096 + large - 1) / large * large);
    if (!block) {
        exit(2);
    }
#if defined(__linux__)
    // As packed weights are kept.
    madvise(block, (bytes + large - 1) / large * large, MADV_HUGEPAGE);
#endif
    memset(block, 0, bytes);
    return block;
}

static void measure(int rounds) {
    static const char *const names[] = {"float32", "bfloat16", "", "int8"};
    double read[MOST_ROUNDS], limit[MOST_ROUNDS], rate[MOST_BUILDS][MOST_ROUNDS], part[MOST_BUILDS][MOST_ROUNDS];
    const double operations = 2.0 * (double)rows * (double)outputs * (double)inputs;
    for (int round = -1; round < rounds; round++) {
        const int at = round < 0 ? 0 : round;
        read[at] = (double)copy_bytes() / time_of(read_all) / 1e9;
        const double fastest = time_of(limit_all);
        limit[at] = turn_operations * 1024 * threads / fastest / 1e9;
        const double reading = read[at] / (double)copy_bytes() * operations;
        for (int turn = 0; turn < build_count; turn++) {
            const int index = (turn + at) % build_count;
            current = &builds[index];
            rate[index][at] = operations / time_of(product_all) / 1e9;
            part[index][at] = rate[index][at] / (reading < limit[at] ? reading : limit[at]) * 100;
        }
    }
    const double reading = median(read, rounds), computing = median(limit, rounds);
    printf("| %zux%zu | %s | %d | %zu | %.1f | %.0f |", outputs, inputs, names[type], threads, rows, reading, computing);
    for (int index = 0; index < build_count; index++) {
        const double middle = median(rate[index], rounds), share_of = median(part[index], rounds);
        printf(" %.1f | %.1f, %.0f %% (%.0f to %.0f) |", middle / operations * (double)copy_bytes(), middle, share_of,
               part[index][0], part[index][rounds - 1]);
    }
    printf("\n");
    fflush(stdout);
}

int main(int count, char **arguments) {
    int rounds = 7, row_count = 0, type_count = 0;
    size_t row_list[64];
    int types[3];
    level = ck_best_level();
    for (int index = 1; index < count; index++) {
        const char *value = index + 1 < count ? arguments[index + 1] : "";
        if (strcmp(arguments[index], "--level") == 0) {
            level = ck_named_level(value);
        } else if (strcmp(arguments[index], "--threads") == 0) {
            threads = atoi(value);
        } else if (strcmp(arguments[index], "--rounds") == 0) {
            rounds = atoi(value);
        } else if (strcmp(arguments[index], "--seconds") == 0) {
            seconds = atof(value);
        } else if (strcmp(arguments[index], "--mebibytes") == 0) {
            weight_bytes = (size_t)atoi(value) << 20;
        } else if (strcmp(arguments[index], "--shape") == 0) {
            if (sscanf(value, "%zux%zu", &outputs, &inputs) != 2) {
                outputs = 0;
            }
        } else if (strcmp(arguments[index], "--rows") == 0 && row_count < 64) {
            row_list[row_count++] = (size_t)atoi(value);
        } else if (strcmp(arguments[index], "--type") == 0 && type_count < 3) {
            types[type_count++] = strcmp(value, "int8") == 0 ? INT8 : strcmp(value, "bfloat16") == 0;
        } else {
            load(arguments[index]);
            continue;
        }
        index++;
    }
    if (level < 0 || !ck_has_level(level) || threads < 1 || threads > MOST_THREADS || rounds < 1 || rounds > MOST_ROUNDS
        || outputs == 0 || inputs == 0 || build_count == 0 || weight_bytes < 2 * outputs * inputs * 4) {
        fprintf(stderr, "usage: measure [--level avx2] [--threads 2] [--shape 3072x768] [--rows 8]... [--type float32]..."
                        " [--rounds 7] [--seconds 0.03] [--mebibytes 1024] LIBRARY...\n");
        return 2;
    }
    weights = memory(weight_bytes);
    // Halves of 0.5 to 1 of either sign, which are good numbers of all three types.
    uint32_t state = 1;
    for (size_t index = 0; index < weight_bytes / 2; index++) {
        state = state * 1664525u + 1013904223u;
        const uint16_t half = (uint16_t)(0x3F00u | (state >> 24 & 0x7F) | (state >> 16 & 0x8000));
        memcpy(weights + index * 2, &half, sizeof half);
    }
    x = memory(MOST_ROWS * inputs * 4);
    y = memory(MOST_ROWS * outputs * 4);
    scales = memory((outputs + CK_PANEL_COLUMNS) * 4);
    row_scales = memory(MOST_ROWS * 4);
    compensation = memory((outputs + CK_PANEL_COLUMNS) * 4);
    q = memory(MOST_ROWS * q_stride());
    for (size_t index = 0; index < MOST_ROWS * inputs; index++) {
        state = state * 1664525u + 1013904223u;
        x[index] = (float)(int32_t)state / 2147483648.0f;
    }
    ck_bind_thread(0);
    for (int thread = 0; thread < threads; thread++) {
        scratch[thread] = memory(CK_SCRATCH_FLOATS * 4);
        pthread_t helper;
        if (thread > 0 && pthread_create(&helper, NULL, help, (void *)(long)thread) != 0) {
            return 2;
        }
    }
    printf("| weights | type | threads | rows | read, GB/s | multiply-adds, GFLOP/s |");
    for (int index = 0; index < build_count; index++) {
        printf(" %s, GB/s | GFLOP/s, of the lower limit |", builds[index].name);
    }
    printf("\n|---|---|---:|---:|---:|---:|");
    for (int index = 0; index < build_count; index++) {
        printf("---:|---:|");
    }
    printf("\n");
    for (int kind = 0; kind < (type_count ? type_count : 1); kind++) {
        type = type_count ? types[kind] : CK_TYPE_F32;
        for (int index = 0; index < row_count; index++) {
            rows = row_list[index];
            if (rows >= 1 && rows <= MOST_ROWS) {
                measure(rounds);
            }
        }
    }
    return 0;
}
