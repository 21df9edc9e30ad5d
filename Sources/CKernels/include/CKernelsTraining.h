// SPDX-License-Identifier: Apache-2.0

// What training computes besides products. Included by CKernels.h, whose constants it uses.

#ifndef SWITCHYARD_CKERNELS_TRAINING_H
#define SWITCHYARD_CKERNELS_TRAINING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// MARK: - Forward and backward passes

/// The sum of a[i] * b[i] in float64, in eight lanes.
double ck_dot64(int level, const float *a, const float *b, size_t count);

/// The natural logarithm of a positive, normal number within 2 units in the last place, by the same operations everywhere.
double ck_log(double x);

/// y[i] = weight[i] * (x[i] / sqrt(mean(x^2) + epsilon)); the mean in float64, summed in eight lanes.
void ck_train_norm(int level, const float *x, const float *weight, float epsilon, size_t count, float *y);

/// The gradients of ck_train_norm: dx[i] += that of x[i], dweight[i] += that of weight[i].
void ck_train_norm_backward(int level, const float *x, const float *weight, const float *dy, float epsilon, size_t count,
                            float *dx, double *dweight);

/// y[i] = weight[i] * ((x[i] - mean) / sqrt(variance + epsilon)) + bias[i]; mean and variance in float64, each summed in eight
/// lanes.
void ck_train_layer_norm(int level, const float *x, const float *weight, const float *bias, float epsilon, size_t count,
                         float *y);

/// The gradients of ck_train_layer_norm: dx[i] += that of x[i], dweight[i] += that of weight[i], dbias[i] += that of bias[i].
void ck_train_layer_norm_backward(int level, const float *x, const float *weight, const float *dy, float epsilon,
                                  size_t count, float *dx, double *dweight, double *dbias);

/// sums[i] += x[row * stride + i] for all rows, ascending.
void ck_column_sums(int level, const float *x, size_t stride, size_t rows, size_t columns, double *sums);

/// slopes[i] = f'(z[i]). `activation` is one of CK_ACTIVATION_*; only CK_ACTIVATION_GELU and CK_ACTIVATION_TANH call the C
/// library. At 0, and relu6's 6, where there is no derivative, it is 0, as in PyTorch.
void ck_activation_slopes(int level, int activation, const float *z, size_t count, float *slopes);

/// gradient[i] = 0 where hidden[i] is not above 0: relu's backward pass, from what it gave.
void ck_relu_backward(int level, const float *hidden, size_t count, float *gradient);

/// a[i] *= b[i].
void ck_times(int level, const float *b, size_t count, float *a);

/// One row's cross-entropy.
///
/// - logits: `count` numbers, at least one; replaced by the gradients of
///   scale * ((1 - smoothing) loss[0] + smoothing loss[1] + z loss[2]) where `gradient` is not 0.
/// - target: the right answer, below `count`.
/// - loss: -log p(target), the mean of -log p over all answers, and log(sum exp(logits)) squared.
void ck_cross_entropy(int level, float *logits, size_t count, size_t target, float smoothing, float z, double scale,
                      int gradient, double loss[3]);

/// How far one row's softmax is from a teacher's answer: sum of q (log q - log p) over the tokens that the answer names, and
/// over all others taken together as one.
///
/// - logits: `count` numbers; multiplied with `inverse`, 1 / temperature, before the softmax p. Replaced by the gradients of
///   scale * the result where `gradient` is not 0, by something else where it is.
/// - tokens: `kept` different ids below `count`, at least one and at most `count`.
/// - logprobs: what the teacher gave each of them, log q, at the same temperature; the others have what is missing to 1.
/// - scratch: room for 2 * `kept` floats.
double ck_divergence(int level, float *logits, size_t count, const int32_t *tokens, const float *logprobs, size_t kept,
                     float inverse, double scale, int gradient, float *scratch);

/// Philox4x32-10.
void ck_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t block[4]);

/// x[i] = 0 or scale * x[i]: 0 where the i-th half-word of the blocks with the counters (i / 8, counter...) is below
/// `threshold`, which is 65536 at most. Of a word, the lower half comes first.
void ck_dropout(int level, float *x, size_t count, uint32_t threshold, float scale, const uint32_t counter[3],
                const uint32_t key[2]);

/// y[i] = x[i] * (1 + epsilon * u), u uniform within -1 ..< 1: the i-th word of the blocks with the counters
/// (i / 4, counter...), taken as a signed number. `y` may be `x`.
void ck_jitter(int level, const float *x, size_t count, float epsilon, const uint32_t counter[3],
               const uint32_t key[2], float *y);

/// One head of one sequence's attention.
typedef struct {
    int level;
    /// Rows of the queries, and of the keys and values.
    size_t queries;
    size_t keys;
    /// Floats of a row, and between the starts of two rows of queries, keys, values, contexts and their gradients.
    size_t width;
    size_t stride;
    /// Whether query i sees keys 0 ... i only.
    int causal;
    /// Added to the scores: the bias of query i and key j lies at bias[queries - 1 - i + j]. Null for none.
    const float *bias;
    /// Dropout of the probabilities as ck_dropout's, row i of query i with counter[0] + i; threshold 0 for none.
    uint32_t threshold;
    float keep_scale;
    uint32_t counter[3];
    uint32_t key[2];
} ck_attention;

/// Floats between the starts of two rows of probabilities: the keys, rounded up to a multiple of 16.
size_t ck_attention_row(size_t keys);

/// Floats of scratch memory that the two functions below need.
size_t ck_attention_floats(size_t queries, size_t keys, size_t width);

/// probabilities = softmax(q k^T + bias), [queries][keys], before dropout; context = dropout(probabilities) v. Rows of
/// probabilities lie ck_attention_row(keys) floats apart, with zeros behind the keys.
void ck_attention_forward(const ck_attention *attention, const float *q, const float *k, const float *v,
                          float *probabilities, float *context, float *scratch);

/// The gradients of ck_attention_forward. `dbias` is laid out as `bias` is, and added to; null where it is not needed.
void ck_attention_backward(const ck_attention *attention, const float *q, const float *k, const float *v,
                           const float *probabilities, const float *dcontext, float *dq, float *dk, float *dv,
                           double *dbias, float *scratch);

// MARK: - Optimizers

/// The sum of x[i]^2 in float64, in sixteen chains.
double ck_square_sum(int level, const float *x, size_t count);

/// A tensor's numbers of one step of AdamW.
typedef struct {
    /// 1 - learning rate * decay.
    float keep;
    /// 1 - beta1, beta2, 1 - beta2.
    float mean_share;
    float square_keep;
    float square_share;
    /// sqrt(1 - beta2^step).
    float root_of_correction;
    float epsilon;
    /// learning rate / (1 - beta1^step).
    float step_size;
    float gradient_scale;
} ck_adamw_factors;

/// AdamW of `count` elements: new means and squares of the scaled gradients, then
/// weight = weight * keep - step_size * mean / (sqrt(square) / root_of_correction + epsilon).
void ck_adamw(int level, const ck_adamw_factors *factors, float *weights, const float *gradients, float *means,
              float *squares, size_t count);

/// One row's squares (gradient * scale)^2 + epsilon: each is added to its column's, and their sum is returned.
double ck_adafactor_gather(int level, const float *gradients, float scale, float epsilon, size_t count, double *columns);

/// The sum of one row's squared updates, an update being (row * columns[i]) * (gradients[i] * scale).
double ck_adafactor_squares(int level, const float *gradients, const float *columns, float row, float scale, size_t count);

/// One row's new weights: weight * keep - update / divisor * rate.
void ck_adafactor_apply(int level, float *weights, const float *gradients, const float *columns, float row, float scale,
                        float divisor, float rate, float keep, size_t count);

#ifdef __cplusplus
}
#endif

#endif
