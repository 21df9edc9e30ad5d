# SPDX-License-Identifier: Apache-2.0
"""Writes measures.json and corruption.json beside this file: what other programs compute.

    pip install rouge-score==0.1.2 jiwer==4.0.0 numpy==2.4.6
    python make_training_data_fixtures.py

Measures come from rouge_score (which `evaluate` calls, with its default of no stemming) and jiwer. Span corruption comes from
the functions of transformers' run_t5_mlm_flax.py (v4.46.0, Apache-2.0), copied below without their class; random numbers
differ, so lengths are compared for every text length, and input and target for given masks.
"""

import importlib.metadata
import json
import pathlib

import jiwer
import numpy as np
from rouge_score import rouge_scorer

PINNED = {"rouge-score": "0.1.2", "jiwer": "4.0.0", "numpy": "2.4.6"}
PAIRS = [
    ("the quick brown fox", "the quick brown fox"),
    ("the quick brown dog", "The Quick, brown fox!"),
    ("a b c d e f g", "g f e d c b a"),
    ("Cafe\u0301 au lait", "Caf\u00e9 au lait"),
    ("HH AH0 L OW1", "HH EH1 L OW0"),
    ("W ER1 L D Z", "W ER1 L D"),
    ("", "nothing was said"),
    ("policemen were running 3 times", "the policeman ran three times, 3 times"),
    ("it's a well-known fact: 42%", "its a well known fact 42"),
    ("\u212aelvin \u0130stanbul stra\u00dfe", "kelvin istanbul strasse"),
    ("to be or not to be that is", "to be to be or not that it is"),
    ("  leading and   double  spaces ", "leading and double spaces"),
    ("\u65e5\u672c\u8a9e text", "\u65e5\u672c text"),
    ("...", "???"),
]


def random_segmentation(rng, num_items, num_segments):
    mask_indices = np.arange(num_items - 1) < (num_segments - 1)
    rng.shuffle(mask_indices)
    first_in_segment = np.pad(mask_indices, [[1, 0]])
    segment_id = np.cumsum(first_in_segment)
    _, segment_length = np.unique(segment_id, return_counts=True)
    return segment_length


def random_spans_noise_mask(rng, length, noise_density, mean_noise_span_length):
    orig_length = length
    num_noise_tokens = int(np.round(length * noise_density))
    num_nonnoise_tokens = length - num_noise_tokens
    num_noise_tokens = min(max(num_noise_tokens, 1), length - 1)
    num_noise_spans = int(np.round(min(num_noise_tokens, num_nonnoise_tokens) / mean_noise_span_length))
    num_noise_spans = max(num_noise_spans, 1)
    num_nonnoise_tokens = length - num_noise_tokens
    noise_span_lengths = random_segmentation(rng, num_noise_tokens, num_noise_spans)
    nonnoise_span_lengths = random_segmentation(rng, num_nonnoise_tokens, num_noise_spans)
    interleaved_span_lengths = np.reshape(
        np.stack([nonnoise_span_lengths, noise_span_lengths], axis=1), [num_noise_spans * 2]
    )
    span_starts = np.cumsum(interleaved_span_lengths)[:-1]
    span_start_indicator = np.zeros((length,), dtype=np.int8)
    span_start_indicator[span_starts] = True
    span_num = np.cumsum(span_start_indicator)
    is_noise = np.equal(span_num % 2, 1)
    return is_noise[:orig_length]


def create_sentinel_ids(mask_indices, vocabulary):
    start_indices = mask_indices - np.roll(mask_indices, 1, axis=-1) * mask_indices
    start_indices[:, 0] = mask_indices[:, 0]
    sentinel_ids = np.where(start_indices != 0, np.cumsum(start_indices, axis=-1), start_indices)
    sentinel_ids = np.where(sentinel_ids != 0, (vocabulary - sentinel_ids), 0)
    sentinel_ids -= mask_indices - start_indices
    return sentinel_ids


def filter_input_ids(input_ids, sentinel_ids, end):
    input_ids_full = np.where(sentinel_ids != 0, sentinel_ids, input_ids)
    input_ids = input_ids_full[input_ids_full >= 0].reshape((1, -1))
    return np.concatenate([input_ids, np.full((1, 1), end, dtype=np.int32)], axis=-1)


def expanded_length(inputs_length, noise_density, mean_noise_span_length):
    """compute_input_and_target_lengths: the raw tokens whose input has at most `inputs_length` tokens."""

    def lengths(tokens_length):
        noise = int(round(tokens_length * noise_density))
        spans = int(round(noise / mean_noise_span_length))
        return (tokens_length - noise) + spans + 1, noise + spans + 1

    tokens_length = inputs_length
    while lengths(tokens_length + 1)[0] <= inputs_length:
        tokens_length += 1
    return tokens_length, lengths(tokens_length)[1]


def measures():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    return {
        "pairs": [
            {
                "prediction": prediction,
                "reference": reference,
                "rougeL": scorer.score(reference, prediction)["rougeL"].fmeasure,
                "cer": jiwer.cer(reference, prediction),
                "wer": jiwer.wer(reference, prediction),
            }
            for prediction, reference in PAIRS
        ],
        "cer": jiwer.cer([pair[1] for pair in PAIRS], [pair[0] for pair in PAIRS]),
        "wer": jiwer.wer([pair[1] for pair in PAIRS], [pair[0] for pair in PAIRS]),
    }


def corruption():
    rng = np.random.default_rng(1)
    tasks = []
    for density, mean in [(0.15, 3.0), (0.5, 3.0), (0.15, 1.5), (0.4, 8.0)]:
        counts = []
        for length in range(2, 700):
            mask = random_spans_noise_mask(rng, length, density, mean)
            spans = int(mask[0]) + int((mask[1:] & ~mask[:-1]).sum())
            counts.append([int(mask.sum()), spans])
        tasks.append({"density": density, "mean": mean, "counts": counts})
    examples = []
    for length in [2, 3, 9, 20, 41]:
        mask = random_spans_noise_mask(rng, length, 0.3, 2.0)
        tokens = rng.integers(3, 900, (1, length))
        mask = mask.reshape(1, -1)
        examples.append(
            {
                "tokens": tokens[0].tolist(),
                "mask": mask[0].tolist(),
                "input": filter_input_ids(tokens, create_sentinel_ids(mask.astype(np.int8), 1000), 1)[0].tolist(),
                "target": filter_input_ids(tokens, create_sentinel_ids((~mask).astype(np.int8), 1000), 1)[0].tolist(),
            }
        )
    longest = [[length, *expanded_length(length, 0.15, 3.0)] for length in [64, 114, 256, 512]]
    return {"tasks": tasks, "examples": examples, "vocabulary": 1000, "longest": longest}


def main():
    for name, version in PINNED.items():
        found = importlib.metadata.version(name)
        assert found == version, f"{name} is {found}; the fixtures are made with {version}"
    here = pathlib.Path(__file__).parent
    for name, value in [("measures", measures()), ("corruption", corruption())]:
        (here / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
