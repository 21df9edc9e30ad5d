// SPDX-License-Identifier: Apache-2.0

#include "include/CSentencePiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace sentencepiece {
namespace logging {
// Exported by the library, declared in none of its installed headers. Level 2 leaves errors and fatal errors.
void SetMinLogLevel(int level);
}  // namespace logging
}  // namespace sentencepiece

struct switchyard_spm_model {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

void write_message(const char *text, char *message, size_t capacity) {
    if (message == nullptr || capacity == 0) {
        return;
    }
    const size_t count = std::min(std::strlen(text), capacity - 1);
    std::memcpy(message, text, count);
    message[count] = '\0';
}

// Runs `body`, which returns a code, and turns whatever it throws into a code.
template <typename Body>
switchyard_spm_code guarded(char *message, size_t capacity, Body body) {
    write_message("", message, capacity);
    try {
        return body();
    } catch (const std::exception &error) {
        write_message(error.what(), message, capacity);
    } catch (...) {
        write_message("an exception of an unknown kind", message, capacity);
    }
    return SWITCHYARD_SPM_FAILED;
}

}  // namespace

extern "C" {

switchyard_spm_code switchyard_spm_load(
    const void *bytes, size_t count, switchyard_spm_model **model, char *message, size_t message_capacity) {
    if (model == nullptr) {
        return SWITCHYARD_SPM_BAD_ARGUMENT;
    }
    *model = nullptr;
    return guarded(message, message_capacity, [&]() {
        if (bytes == nullptr || count == 0) {
            write_message("the model is empty", message, message_capacity);
            return SWITCHYARD_SPM_BAD_MODEL;
        }
        sentencepiece::logging::SetMinLogLevel(2);
        auto loaded = std::make_unique<switchyard_spm_model>();
        const auto status =
            loaded->processor.LoadFromSerializedProto(absl::string_view(static_cast<const char *>(bytes), count));
        if (!status.ok()) {
            write_message(status.error_message(), message, message_capacity);
            return SWITCHYARD_SPM_BAD_MODEL;
        }
        *model = loaded.release();
        return SWITCHYARD_SPM_OK;
    });
}

void switchyard_spm_free(switchyard_spm_model *model) {
    delete model;
}

int32_t switchyard_spm_piece_count(const switchyard_spm_model *model) {
    return model->processor.GetPieceSize();
}

int32_t switchyard_spm_unknown_id(const switchyard_spm_model *model) {
    return model->processor.unk_id();
}

const char *switchyard_spm_piece(const switchyard_spm_model *model, int32_t id, size_t *length) {
    *length = 0;
    if (id < 0 || id >= model->processor.GetPieceSize()) {
        return nullptr;
    }
    const std::string &piece = model->processor.IdToPiece(id);
    *length = piece.size();
    return piece.data();
}

int32_t switchyard_spm_piece_id(const switchyard_spm_model *model, const char *piece, size_t length) {
    try {
        return model->processor.PieceToId(absl::string_view(piece, length));
    } catch (...) {
        return model->processor.unk_id();
    }
}

switchyard_spm_code switchyard_spm_encode(
    const switchyard_spm_model *model, const char *text, size_t length, int32_t *ids, size_t capacity,
    size_t *id_count, char *message, size_t message_capacity) {
    *id_count = 0;
    return guarded(message, message_capacity, [&]() {
        std::vector<int> found;
        const auto status = model->processor.Encode(absl::string_view(text, length), &found);
        if (!status.ok()) {
            write_message(status.error_message(), message, message_capacity);
            return SWITCHYARD_SPM_ENCODE_FAILED;
        }
        *id_count = found.size();
        if (found.size() > capacity) {
            write_message("more ids than the buffer holds", message, message_capacity);
            return SWITCHYARD_SPM_BUFFER_TOO_SMALL;
        }
        std::copy(found.begin(), found.end(), ids);
        return SWITCHYARD_SPM_OK;
    });
}

}  // extern "C"
