# SPDX-License-Identifier: Apache-2.0
"""Converts a T5 checkpoint with CTranslate2, and prints the token ids of its greedy answers as JSON.

    python convert_student.py CHECKPOINT FOLDER NEW_TOKENS TEXT ...

The converter reads the checkpoint and its tokenizer with transformers; the converted model is written to FOLDER.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer


def main():
    checkpoint, folder, new_tokens, *texts = sys.argv[1:]
    TransformersConverter(checkpoint).convert(folder, force=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    inputs = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in texts]
    translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
    results = translator.translate_batch(
        inputs, beam_size=1, max_decoding_length=int(new_tokens), return_end_token=True, disable_unk=False)
    print(json.dumps({"token_ids": [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]}))


if __name__ == "__main__":
    main()
