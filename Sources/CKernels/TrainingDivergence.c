// SPDX-License-Identifier: Apache-2.0

// How far a row of logits is from what a teacher said, compiled once for each instruction set.

#include "Softmax.h"

/// x[i] = exp(x[i] - most); returns the sum.
CK_INLINE double take_powers(float *x, size_t count, float most) {
    double8 sum = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        part = exp_negative16(part - most);
        memcpy(x + i, &part, sizeof part);
        sum = add16(sum, part);
    }
    if (i < count) {
        float16 part = (float16){0} + most;
        memcpy(&part, x + i, (count - i) * sizeof(float));
        part = keep_first16(exp_negative16(part - most), count - i);
        memcpy(x + i, &part, (count - i) * sizeof(float));
        sum = add16(sum, part);
    }
    return tree_sum8(sum);
}

/// The kept tokens and the rest of the vocabulary have a softmax each, by the greatest logit of each, which are then put
/// together: so what the student leaves to the rest is a number of its own, however little it is, and not what rounding makes of
/// 1 less all others.
CK_INLINE double divergence(float *x, size_t count, const int32_t *tokens, const float *logprobs, size_t kept,
                            float inverse, double scale, int gradient, float *scratch) {
    float *const powers = scratch;
    float *const shares = scratch + kept;
    for (size_t j = 0; j < count; j++) {
        x[j] = x[j] * inverse;
    }
    for (size_t i = 0; i < kept; i++) {
        shares[i] = logprobs[i] < 0.0f ? logprobs[i] : 0.0f;
    }
    const double mass = take_powers(shares, kept, 0.0f);
    double across = 0;
    for (size_t i = 0; i < kept; i++) {
        powers[i] = x[tokens[i]];
        x[tokens[i]] = -INFINITY;
        across += (double)shares[i] * ((double)logprobs[i] - (double)powers[i]);
    }
    const float most_kept = greatest(powers, kept);
    const double kept_sum = take_powers(powers, kept, most_kept);
    const int has_rest = kept < count;
    const float most_rest = has_rest ? greatest(x, count) : -INFINITY;
    const double rest_sum = has_rest ? take_powers(x, count, most_rest) : 0.0;
    const float most = most_rest > most_kept ? most_rest : most_kept;
    const double kept_factor = (double)exp_negative(most_kept - most);
    const double rest_factor = has_rest ? (double)exp_negative(most_rest - most) : 0.0;
    const double sum = kept_sum * kept_factor + rest_sum * rest_factor;
    if (sum != sum) {
        return sum;
    }
    const double normalizer = (double)most + logarithm(sum);
    const double rest = has_rest && mass < 1.0 ? 1.0 - mass : 0.0;
    double loss = across + mass * normalizer;
    if (rest > 0) {
        loss += rest * (logarithm(rest) - ((double)most_rest + logarithm(rest_sum) - normalizer));
    }
    if (gradient) {
        const double slope = scale * (double)inverse;
        if (has_rest) {
            const float factor = (float)(slope * (rest_factor / sum - rest / rest_sum));
            for (size_t j = 0; j < count; j++) {
                x[j] = x[j] * factor;
            }
        }
        for (size_t i = 0; i < kept; i++) {
            x[tokens[i]] = (float)(slope * ((double)powers[i] * kept_factor / sum - (double)shares[i]));
        }
    }
    return loss;
}

#if defined(__x86_64__)
static __attribute__((target("avx2,fma"))) double divergence_avx2(float *x, size_t n, const int32_t *t, const float *l,
                                                                  size_t k, float i, double c, int g, float *s) {
    return divergence(x, n, t, l, k, i, c, g, s);
}
static __attribute__((target("avx512f,avx2,fma"))) double divergence_avx512(float *x, size_t n, const int32_t *t,
                                                                            const float *l, size_t k, float i, double c,
                                                                            int g, float *s) {
    return divergence(x, n, t, l, k, i, c, g, s);
}
#endif

double ck_divergence(int level, float *logits, size_t count, const int32_t *tokens, const float *logprobs, size_t kept,
                     float inverse, double scale, int gradient, float *scratch) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        return divergence_avx512(logits, count, tokens, logprobs, kept, inverse, scale, gradient, scratch);
    }
    if (level >= CK_LEVEL_AVX2) {
        return divergence_avx2(logits, count, tokens, logprobs, kept, inverse, scale, gradient, scratch);
    }
#endif
    (void)level;
    return divergence(logits, count, tokens, logprobs, kept, inverse, scale, gradient, scratch);
}
