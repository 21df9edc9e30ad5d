// SPDX-License-Identifier: Apache-2.0

/// Numeric kernels behind TensorKernels.
///
/// Every function that adds numbers up adds them in an order that depends only on the length of the sum, and fuses
/// multiply-adds exactly where it says so. Hence a result does not depend on the instruction set that computed it, on
/// how many rows were computed together, or on which thread did it.
///
/// All functions are plain leaf code: they allocate nothing, keep no state and trust their arguments, which the Swift
/// side has checked.

#ifndef SWITCHYARD_CKERNELS_H
#define SWITCHYARD_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Columns in one panel of a packed matrix.
#define CK_PANEL_COLUMNS 32

/// Floats of scratch memory that a product of several rows needs: inputs, which stay in the L2 cache along with two slices of
/// weights, sums between slices, and a slice of widened weights.
#define CK_SCRATCH_FLOATS (128 * 1024)

/// Inputs of a column that lie side by side in an int8 panel.
#define CK_INT8_GROUP 4

/// The most inputs of an int8 product: the sum of this many products of two magnitudes up to 127 fits into an int32,
/// and so does 128 times the sum of as many weights.
#define CK_INT8_MOST_INPUTS 131072

/// Instruction sets a kernel may use. A higher level of one architecture includes the lower ones.
enum {
    /// Portable C with fmaf.
    CK_LEVEL_SCALAR = 0,
    /// AVX2 and FMA3 (x86-64).
    CK_LEVEL_AVX2 = 1,
    /// AVX-512 F (x86-64).
    CK_LEVEL_AVX512 = 2,
    /// Advanced SIMD, called NEON, which every AArch64 processor has.
    CK_LEVEL_NEON = 3,
};

/// Instructions that int8 products use at a level.
enum {
    CK_INT8_SCALAR = 0,
    CK_INT8_AVX2 = 1,
    /// AVX-512 VNNI, BW and VL.
    CK_INT8_VNNI = 2,
    /// Widening multiplications of NEON.
    CK_INT8_NEON = 3,
    /// NEON's dot product.
    CK_INT8_DOT = 4,
};

/// Element types of source tensors and of packed panels.
enum {
    CK_TYPE_F32 = 0,
    CK_TYPE_BF16 = 1,
    CK_TYPE_F16 = 2,
};

/// Functions between the two matrices of a feed-forward network.
enum {
    /// x * Phi(x) with the error function.
    CK_ACTIVATION_GELU = 0,
    /// The same by its tanh approximation.
    CK_ACTIVATION_GELU_TANH = 1,
    /// x * sigmoid(x).
    CK_ACTIVATION_SILU = 2,
    /// x * sigmoid(1.702 * x)
    CK_ACTIVATION_QUICK_GELU = 3,
    /// tanh(x)
    CK_ACTIVATION_TANH = 4,
    /// min(max(x, 0), 6)
    CK_ACTIVATION_RELU6 = 5,
    /// max(x, 0)^2
    CK_ACTIVATION_SQUARED_RELU = 6,
    /// max(x, 0)
    CK_ACTIVATION_RELU = 7,
};

/// The environment variable that names the level to compute with, for tests: portable, avx2, avx512 or neon.
#define CK_LEVEL_VARIABLE "SWITCHYARD_KERNELS"

/// The level of a name that CK_LEVEL_VARIABLE may have; -1 for another text.
int ck_named_level(const char *name);

/// The level to compute with: the one that CK_LEVEL_VARIABLE names if this machine can run it, or else the highest that this
/// processor and operating system can run.
int ck_best_level(void);

/// Whether this processor and operating system can run a level: 1 or 0.
int ck_has_level(int level);

/// Bytes of a data or common cache of the processor, by its level from 1 to 3: 32 KiB, 512 KiB and 0 where it does not say.
size_t ck_cache_bytes(int level);

/// Whether products of few rows are faster on this processor where their slices of weights come from the first-level cache: 1
/// on AMD's processors, 0 on others, which get more from memory beside slices in the second-level cache.
///
/// Measured on Zen 5 and Emerald Rapids (docs/benchmarks.md). No bit of a product depends on it.
int ck_prefers_near_slices(void);

/// Sets `ck_prefers_near_slices`, for tests and benchmarks: 1 or 0; -1 leaves it to the processor again.
void ck_set_near_slices(int preferred);

/// Binds the calling thread to one processor. Returns 1, or 0 where the system does not allow it or has no such call.
int ck_bind_thread(int cpu);

/// Names the calling thread, for `ps` and traces; at most 15 bytes.
void ck_name_thread(const char *name);

/// The processors that the calling thread may run on, ascending. Returns how many were written: `room` at most, 0 where
/// the system does not say.
int ck_allowed_processors(int *cpus, int room);

/// Sleeps while a word has a value, until another thread wakes those that sleep on it.
///
/// It may return early: the caller looks at the word again. Where the system has no such call, it sleeps for an instant.
void ck_sleep_while(const int32_t *word, int32_t value);

/// Wakes all threads that sleep on a word.
void ck_wake_all(const int32_t *word);

/// Tells the processor that the caller is waiting for another thread's write.
static inline void ck_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// MARK: - Packed product

/// y[r][c] = sum over k of x[r][k] * W[c][k], for the columns of the panels panel_begin ..< panel_end.
///
/// Each output element is one chain of fused multiply-adds over k = 0, 1, ... in float32, starting from +0.
///
/// - panels: the packed weights, from the first panel on: panel p holds columns 32p ..< 32p+32 as [k][32] elements,
///   columns past `outputs` being zero.
/// - type: CK_TYPE_F32 or CK_TYPE_BF16.
/// - x: `rows` rows of `inputs` floats, `x_stride` floats apart.
/// - y: `rows` rows of `outputs` floats, `y_stride` floats apart. Must not overlap x.
/// - relu: when not 0, negative results become 0 (NaN stays NaN).
/// - scratch: room for CK_SCRATCH_FLOATS floats that are not in use elsewhere; null where there is one row at most.
void ck_product(int level, const void *panels, int type, size_t inputs, size_t outputs, size_t panel_begin,
                size_t panel_end, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride, int relu,
                float *scratch);

/// Packs panels panel_begin ..< panel_end of the row-major tensor `source` [outputs][inputs] (unaligned allowed).
///
/// source_type is one of CK_TYPE_*, type is CK_TYPE_F32 or CK_TYPE_BF16 (rounded to nearest even where the source is
/// wider).
void ck_pack(const void *source, int source_type, size_t inputs, size_t outputs, void *panels, int type,
             size_t panel_begin, size_t panel_end);

// MARK: - Products of matrices that change

/// y[r][c] = sum over k of A[r][k] * B[k][c], or y + that, for the columns of the panels panel_begin ..< panel_end.
///
/// Each output element is one chain of fused multiply-adds over k = 0, 1, ... in float32, starting from +0, or from what y
/// holds.
///
/// - panels: B, as ck_pack_panels packs it, from the first panel on.
/// - a: `rows` rows of `depth` floats, `a_stride` floats apart; with `a_transposed`, `depth` rows of `rows` floats.
/// - accumulate: when not 0, chains start from what y holds.
/// - y, relu, scratch: as for ck_product; scratch may be null only where there is one row and it is not transposed.
void ck_multiply(int level, const float *panels, size_t depth, size_t columns, size_t panel_begin, size_t panel_end,
                 const float *a, size_t a_stride, int a_transposed, size_t rows, float *y, size_t y_stride,
                 int accumulate, int relu, float *scratch);

/// Floats of packed panels that ck_multiply_streaming holds at a time, of a scratch memory that is that much longer.
#define CK_STREAM_FLOATS (64 * 1024)

/// y = a^T b or y += a^T b, with a [depth][rows] and b [depth][columns], of the same bits as ck_multiply's: for a small y and
/// long sums. b is packed a piece at a time, which stays in the second-level cache.
///
/// - columns: at most CK_STREAM_FLOATS / 8.
/// - scratch: room for CK_SCRATCH_FLOATS + CK_STREAM_FLOATS floats.
void ck_multiply_streaming(int level, const float *a, size_t a_stride, const float *b, size_t b_stride, size_t rows,
                           size_t depth, size_t columns, float *y, size_t y_stride, int accumulate, float *scratch);

/// Packs panels panel_begin ..< panel_end of a float32 matrix [depth][columns].
///
/// - source: `depth` rows of `columns` floats, `stride` floats apart; with `transposed`, `columns` rows of `depth` floats.
/// - panels: panel p holds columns 32p ..< 32p+32 as [k][32] floats, columns past the matrix's being zeros.
void ck_pack_panels(const float *source, size_t stride, int transposed, size_t depth, size_t columns, float *panels,
                    size_t panel_begin, size_t panel_end);

// MARK: - Packed int8 product

/// The instructions that int8 products use at a level on this processor: one of CK_INT8_*.
int ck_int8_kernel(int level);

/// Quantises rows, each by itself: q = round(x * 127 / max |x|), ties to even, and a scale of max |x| / 127.
///
/// A row whose largest magnitude is below 127 times the smallest normal number becomes zeros with a scale of 0; one with
/// an infinity or NaN in it gets a scale of NaN.
///
/// - level: that of the products that will read the rows. What is written may differ between levels.
/// - q: `rows` rows of `inputs` bytes, rounded up to a multiple of CK_INT8_GROUP and filled with zeros, `q_stride` bytes
///   apart.
/// - scales: one per row.
void ck_quantize_rows(int level, const float *x, size_t x_stride, size_t inputs, size_t rows, void *q, size_t q_stride,
                      float *scales);

/// y[r][c] = (float)(sum over k of q[r][k] * W[c][k]) * (row_scales[r] * scales[c]), for the columns of the panels
/// panel_begin ..< panel_end. The sum is exact; each float operation rounds to nearest.
///
/// - panels, scales, compensation: what ck_pack_int8 wrote.
/// - inputs: at most CK_INT8_MOST_INPUTS.
/// - q, row_scales: what ck_quantize_rows wrote at the same level.
/// - y: `rows` rows of `outputs` floats, `y_stride` floats apart.
/// - relu: when not 0, negative results become 0 (NaN stays NaN).
void ck_product_int8(int level, const void *panels, const float *scales, const int32_t *compensation, size_t inputs,
                     size_t outputs, size_t panel_begin, size_t panel_end, const void *q, size_t q_stride,
                     const float *row_scales, size_t rows, float *y, size_t y_stride, int relu);

/// Packs panels panel_begin ..< panel_end of the row-major tensor `source` [outputs][inputs] (unaligned allowed), each
/// of its rows quantised as ck_quantize_rows does.
///
/// - panels: panel p holds columns 32p ..< 32p+32 as [group][32][4] bytes, group g being inputs 4g ..< 4g+4. Inputs and
///   columns past the tensor's are zeros.
/// - scales: one per column, 32 per panel.
/// - compensation: -128 times the sum of the column's weights, 32 per panel: what a sum starts with where instructions
///   need activations that are 128 too high.
void ck_pack_int8(const void *source, int source_type, size_t inputs, size_t outputs, void *panels, float *scales,
                  int32_t *compensation, size_t panel_begin, size_t panel_end);

// MARK: - Screening

/// How far a weight row is from its int8 copy, as ck_pack_int8 makes it: the Euclidean norm of the row as it is stored,
/// and that of the difference, both rounded up. Neither is a number where an element is not one.
///
/// - source: `inputs` elements of `source_type`; need not be aligned.
/// - stored_type: how the row is stored elsewhere, CK_TYPE_F32 or CK_TYPE_BF16: what the distance is measured from.
void ck_int8_distance(const void *source, int source_type, int stored_type, size_t inputs, float *norm,
                      float *distance);

/// What the int8 copy of an input row leaves out: rest[k] = x[k] - copy[k], the Euclidean norm of the row, and how far
/// the row is from its copy and the rest's copy together, both rounded up.
void ck_int8_rest(const float *x, size_t inputs, float *rest, float *norm, float *distance);

/// Which panels may hold the greatest of `count` sums, each of which is known within bounds: sum c lies between
/// first[c] + second[c] - b and first[c] + second[c] + b, with b = norm_factor * norms[c] + distance_factor *
/// distances[c].
///
/// - highest: room for `count` floats.
/// - panels: one per panel of CK_PANEL_COLUMNS sums; 1 where one of them may be the greatest or is not a number.
void ck_screen(int level, const float *first, const float *second, const float *norms, const float *distances,
               float norm_factor, float distance_factor, size_t count, float *highest, uint8_t *panels);

// MARK: - Vectors

/// Widens `count` elements of `source` (unaligned allowed) to float32. CK_TYPE_F32 copies.
void ck_widen(const void *source, int source_type, size_t count, float *destination);

/// Rounds `count` floats to bfloat16, to nearest even; `destination` may be unaligned. Beyond the largest bfloat16 a
/// number becomes infinite, and a NaN stays one.
void ck_round_bf16(const float *source, size_t count, void *destination);

/// destination[i] = weight[i] * (x[i] / sqrt(mean(x^2) + epsilon)); the mean in float32, summed in 16 lanes.
void ck_rms_norm(int level, const float *x, const float *weight, float epsilon, size_t count, float *destination);

/// sum[i] = residual[i] + update[i], then destination from `sum` as ck_rms_norm computes it.
void ck_add_rms_norm(int level, const float *residual, const float *update, const float *weight, float epsilon,
                     size_t count, float *sum, float *destination);

/// destination[i] = weight[i] * ((x[i] - mean) / sqrt(variance + epsilon)) + bias[i]; the mean, and then the mean of the squared
/// differences from it, in float32, summed in 16 lanes.
void ck_layer_norm(int level, const float *x, const float *weight, const float *bias, float epsilon, size_t count,
                   float *destination);

/// sum[i] = residual[i] + update[i], then destination from `sum` as ck_layer_norm computes it.
void ck_add_layer_norm(int level, const float *residual, const float *update, const float *weight, const float *bias,
                       float epsilon, size_t count, float *sum, float *destination);

/// x = exp(x - max(x)) / sum, in place. The sum runs in 16 lanes. Returns the largest probability.
float ck_softmax(int level, float *x, size_t count);

/// destination[i] = a[i] + b[i].
void ck_add(const float *a, const float *b, size_t count, float *destination);

/// destination[i] = residual[i] + scale * value[i], the product rounded before the sum. `value` may be unaligned.
void ck_scale_add(const float *residual, const void *value, float scale, size_t count, float *destination);

/// destination[i] = scale * value[i].
void ck_scale(const float *value, float scale, size_t count, float *destination);

/// One head's keys and values, in pages of `page_tokens` tokens.
typedef struct {
    /// Where the pages of the keys and those of the values begin; they may be the same ones.
    const void *const *key_pages;
    const void *const *value_pages;
    /// Bytes from a page's start to the head's first key, and to its first value; the next tokens' follow.
    size_t keys;
    size_t values;
    size_t page_tokens;
    /// CK_TYPE_F32 or CK_TYPE_BF16.
    int type;
    /// Elements of a key, and of a value.
    size_t width;
} ck_kept_head;

/// Floats of scratch memory that ck_attend needs where no query sees more keys than these.
size_t ck_attend_floats(size_t keys);

/// Attention of some queries of one head: context i = softmax(query i . keys + bias) values. Query i sees the first
/// keys + i * step tokens, one at least.
///
/// A score is summed in 16 lanes of fused multiply-adds, then its bias is added; the softmax is that of ck_softmax; an element
/// of a context is one chain of fused multiply-adds over the tokens.
///
/// - queries, contexts: `count` rows of the head's width, `stride` floats apart.
/// - bias: what is added to the scores of query i lies at bias[j - i] for token j; null for none.
/// - scratch: room for ck_attend_floats(keys + (count - 1) * step) floats.
void ck_attend(int level, const ck_kept_head *head, const float *queries, size_t stride, size_t count, size_t keys,
               size_t step, const float *bias, float *scratch, float *contexts);

/// Floats of scratch memory that the two functions below need for one head of a sequence.
size_t ck_sequence_floats(size_t queries, size_t keys, size_t width);

/// Packs one head's keys and values of a sequence into scratch memory, for ck_sequence_attend.
///
/// - keys, values: `count` rows of `width` floats, `stride` floats apart.
void ck_sequence_keep(const float *keys, const float *values, size_t stride, size_t count, size_t width, float *scratch);

/// contexts = softmax(queries keys^T + bias) values, of some queries that see all keys of ck_sequence_keep.
///
/// An element of scores and of contexts is one chain of fused multiply-adds in ascending order; the softmax is ck_softmax's.
///
/// - queries, contexts: `count` rows of `width` floats, `stride` floats apart.
/// - keys: their number, as it was handed to ck_sequence_keep with this scratch memory.
/// - bias: what is added to the scores of query i lies at bias[j - i] for key j; null for none.
void ck_sequence_attend(int level, const float *queries, size_t stride, size_t count, size_t keys, size_t width,
                        const float *bias, float *contexts, float *scratch);

/// x[i] = f(x[i]) in place, or f(x[i]) * factor[i] where `factor` is not null. `activation` is one of CK_ACTIVATION_*; only
/// CK_ACTIVATION_GELU and CK_ACTIVATION_TANH call the C library, the others give the same bits on all machines and levels.
void ck_activate(int level, int activation, float *x, const float *factor, size_t count);

/// The exclusive or of the little-endian 64-bit words of `count` bytes (unaligned allowed), the last one padded with
/// zeros: reads memory front to back as fast as a loop can, to measure that speed.
uint64_t ck_read(int level, const void *bytes, size_t count);

/// exp(x) for x <= 0, within 2 units in the last place; below -87.3 it is 0. Exposed for its test.
float ck_exp(float x);

#ifdef __cplusplus
}
#endif

#include "CKernelsTraining.h"

#endif
