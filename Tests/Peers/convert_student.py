# SPDX-License-Identifier: Apache-2.0
"""Loads a T5 checkpoint with transformers, converts it with CTranslate2, and prints the ids of both's greedy answers as JSON.

    python convert_student.py CHECKPOINT FOLDER NEW_TOKENS TEXT ...

The converter reads the checkpoint and its tokenizer with transformers; the converted model is written to FOLDER. Keys that
transformers misses or does not expect are in the JSON too.
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer, T5ForConditionalGeneration


def answers_of_transformers(checkpoint, tokenizer, texts, new_tokens):
    model, report = T5ForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    ids = []
    for text in texts:
        output = model.generate(**tokenizer(text, return_tensors="pt"), do_sample=False, num_beams=1, max_new_tokens=new_tokens)
        # Without the start token.
        ids.append(output[0][1:].tolist())
    return ids, sorted([*report["missing_keys"], *report["unexpected_keys"]])


def main():
    checkpoint, folder, new_tokens, *texts = sys.argv[1:]
    TransformersConverter(checkpoint).convert(folder, force=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    inputs = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in texts]
    translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
    results = translator.translate_batch(
        inputs, beam_size=1, max_decoding_length=int(new_tokens), return_end_token=True, disable_unk=False)
    ids, keys = answers_of_transformers(checkpoint, tokenizer, texts, int(new_tokens))
    print(json.dumps({
        "token_ids": [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results],
        "transformers_token_ids": ids, "transformers_key_differences": keys,
    }))


if __name__ == "__main__":
    main()
