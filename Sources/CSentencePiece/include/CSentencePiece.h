// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_CSENTENCEPIECE_H
#define SWITCHYARD_CSENTENCEPIECE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// The C face of libsentencepiece: just what a T5 tokenizer needs of it, with explicit lengths and no exceptions.
///
/// Every function that can fail returns one of these codes and writes a NUL-terminated, possibly shortened, message
/// for people into the caller's buffer.
typedef enum switchyard_spm_code {
    SWITCHYARD_SPM_OK = 0,
    /// The bytes are no SentencePiece model, or one that the library refuses.
    SWITCHYARD_SPM_BAD_MODEL = 1,
    /// The library could not encode the text.
    SWITCHYARD_SPM_ENCODE_FAILED = 2,
    /// The caller's buffer is too small for the ids.
    SWITCHYARD_SPM_BUFFER_TOO_SMALL = 3,
    /// An argument is out of its range.
    SWITCHYARD_SPM_BAD_ARGUMENT = 4,
    /// Memory ran out, or the library threw something else.
    SWITCHYARD_SPM_FAILED = 5
} switchyard_spm_code;

/// A loaded model. Immutable, so that any number of threads may use one at the same time.
typedef struct switchyard_spm_model switchyard_spm_model;

/// Loads a serialized `sentencepiece.ModelProto`.
///
/// On success `*model` is a new model that the caller frees; otherwise it is NULL.
switchyard_spm_code switchyard_spm_load(
    const void *bytes, size_t count, switchyard_spm_model **model, char *message, size_t message_capacity);

/// Frees a model; NULL is allowed.
void switchyard_spm_free(switchyard_spm_model *model);

/// The number of pieces.
int32_t switchyard_spm_piece_count(const switchyard_spm_model *model);

/// The id of the unknown piece.
int32_t switchyard_spm_unknown_id(const switchyard_spm_model *model);

/// The bytes of a piece, which live as long as the model does; NULL and a length of 0 for an id that is none.
const char *switchyard_spm_piece(const switchyard_spm_model *model, int32_t id, size_t *length);

/// The id of a piece, or that of the unknown piece.
int32_t switchyard_spm_piece_id(const switchyard_spm_model *model, const char *piece, size_t length);

/// Encodes UTF-8 text of an explicit length (NUL bytes are text) into ids.
///
/// There are never more ids than bytes of normalized text, so that a buffer of as many ids always suffices for a model
/// that normalizes nothing.
switchyard_spm_code switchyard_spm_encode(
    const switchyard_spm_model *model, const char *text, size_t length, int32_t *ids, size_t capacity,
    size_t *id_count, char *message, size_t message_capacity);

#ifdef __cplusplus
}
#endif

#endif
