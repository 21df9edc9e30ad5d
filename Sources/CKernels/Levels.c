// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#include <stdlib.h>
#include <string.h>

static int processor_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return __builtin_cpu_supports("avx512f") ? CK_LEVEL_AVX512 : CK_LEVEL_AVX2;
    }
#endif
#if defined(__aarch64__)
    return CK_LEVEL_NEON;
#else
    return CK_LEVEL_SCALAR;
#endif
}

int ck_named_level(const char *name) {
    static const struct {
        const char *name;
        int level;
    } levels[] = {
        {"portable", CK_LEVEL_SCALAR},
        {"avx2", CK_LEVEL_AVX2},
        {"avx512", CK_LEVEL_AVX512},
        {"neon", CK_LEVEL_NEON},
    };
    for (size_t index = 0; index < sizeof levels / sizeof levels[0]; index++) {
        if (strcmp(name, levels[index].name) == 0) {
            return levels[index].level;
        }
    }
    return -1;
}

int ck_best_level(void) {
    const char *name = getenv(CK_LEVEL_VARIABLE);
    const int wanted = name == NULL ? -1 : ck_named_level(name);
    return wanted >= 0 && ck_has_level(wanted) ? wanted : processor_level();
}

int ck_has_level(int level) {
#if defined(__aarch64__)
    return level == CK_LEVEL_SCALAR || level == CK_LEVEL_NEON;
#else
    return level >= CK_LEVEL_SCALAR && level <= processor_level();
#endif
}
