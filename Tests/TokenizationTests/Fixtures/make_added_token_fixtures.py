#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes added/: eight small tokenizers in the layouts that checkpoints have, and what transformers gives with each.

Needs transformers 5.23.0, tokenizers 0.23.3, sentencepiece 0.2.3 and protobuf. Run it from anywhere:

    python Tests/TokenizationTests/Fixtures/make_added_token_fixtures.py MODEL_DIRECTORY

MODEL_DIRECTORY holds scenes.txt, on which the pieces are trained (deploy/models/switch-mini). Seeds are fixed, so that a
second run writes the same files. Texts on which the tokenizers library fails are left out.
"""

import io
import json
import pathlib
import random
import shutil
import struct
import sys
import tempfile

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2 as proto
from transformers import AddedToken, AutoTokenizer, T5Tokenizer

assert transformers.__version__ == "5.23.0", transformers.__version__
assert tokenizers.__version__ == "0.23.3", tokenizers.__version__
assert sentencepiece.__version__ == "0.2.3", sentencepiece.__version__

HERE = pathlib.Path(__file__).parent / "added"
SENTINELS = 10
TEXTS = 250
SEQUENCES = 64
FLAGS = [dict(lstrip=bool(n & 1), rstrip=bool(n & 2), normalized=bool(n & 4), single_word=bool(n & 8),
              special=bool(n & 16)) for n in range(32)]
# One text for each combination of flags: white space, punctuation, words, words within words, letters that the table
# of normalizations changes, combining marks, scripts without case.
WORDS = ["\n", "{", "Zed", "<tag>", "horse", "\t", "Caf\u00e9", "a b", "}", "[x]", "king", "kingdom", "\uff26\uff55",
         "\u65e5\u672c", "e\u0301", "##", " dot.", "lord ", "My", "<<", "O", "\u00df", "_", "1", "\r\n", "|", "the",
         "THE", "\u2581w", "...", "wh", "\U0001f600"]
assert len(set(WORDS)) == len(FLAGS) == 32


def write(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def train(folder, corpus, **options):
    """Trains 300 pieces with a small table of normalizations instead of SentencePiece's, which has 240 kB."""
    rules = {"\uff21": "A", "\uff26": "F", "\uff55": "u", "\u00e9": "e", "\ufb01": "fi", "\u00a0": " ", "\u200b": " ",
             "T": "t", "H": "h", "E": "e", "M": "m", "\uff1c": "<", "\uff1e": ">", "e\u0301": "\u00e9", "\u00ad": ""}
    with tempfile.TemporaryDirectory() as temporary:
        table = pathlib.Path(temporary) / "rules.tsv"
        table.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                                 for a, b in sorted(rules.items())))
        model = io.BytesIO()
        settings = dict(vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.9995)
        if options.pop("plain", False):
            settings["normalization_rule_name"] = "identity"
        else:
            settings["normalization_rule_tsv"] = str(table)
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=model, num_threads=1,
                                                 minloglevel=2, **{**settings, **options})
    folder.mkdir(parents=True)
    content = proto.ModelProto()
    content.ParseFromString(model.getvalue())
    content.normalizer_spec.ClearField("normalization_rule_tsv")
    (folder / "spiece.model").write_bytes(content.SerializeToString(deterministic=True))
    write(folder / "config.json", {"model_type": "switch_transformers"})


def decoder(first, named=("<pad>", "</s>", "<unk>"), pieces=300):
    """`added_tokens_decoder` as transformers 4 writes it."""
    plain = dict(lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
    table = {str(i): dict(content=c, **plain) for i, c in enumerate(named)}
    table |= {str(pieces + SENTINELS - 1 - k): dict(content=f"<extra_id_{k}>", **{**plain, "lstrip": True, "rstrip": True})
              for k in range(SENTINELS)}
    return table | {str(first + i): dict(content=w, **f) for i, (w, f) in enumerate(zip(WORDS, FLAGS))}


def config(**values):
    return dict(eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=SENTINELS, legacy=False,
                model_max_length=1000000000000000019884624838656, sp_model_kwargs={}, tokenizer_class="T5Tokenizer", **values)


def make_tokenizers(corpus):
    """Makes the folders."""
    # 1: pieces alone, without <pad>.
    train(HERE / "no-pad", corpus, pad_id=-1, eos_id=1, unk_id=2, bos_id=0)
    write(HERE / "no-pad" / "tokenizer_config.json", {"extra_ids": SENTINELS})
    # 2: as transformers 4 saves it.
    folder = HERE / "decoder"
    train(folder, corpus)
    write(folder / "tokenizer_config.json", config(
        added_tokens_decoder=decoder(310), additional_special_tokens=[f"<extra_id_{k}>" for k in range(SENTINELS)]))
    # 3: as transformers 4.30 saved it.
    folder = HERE / "legacy"
    train(folder, corpus)
    write(folder / "tokenizer_config.json", config(clean_up_tokenization_spaces=True))
    write(folder / "special_tokens_map.json", dict(
        eos_token="</s>", unk_token=dict(content="<unk>", lstrip=True, rstrip=False, normalized=False, single_word=False),
        pad_token="<pad>", sep_token=dict(content="Zed", lstrip=False, rstrip=True, normalized=True, single_word=True)))
    write(folder / "added_tokens.json", {w: 310 + i for i, w in enumerate(WORDS)})
    # 4: the pieces have sentinels of their own.
    folder = HERE / "own-sentinels"
    train(folder, corpus, user_defined_symbols=[f"<extra_id_{k}>" for k in range(SENTINELS)] + ["[x]"])
    write(folder / "tokenizer_config.json", config())
    # 5: as transformers 5.23 saves it; there is no spiece.model.
    folder = HERE / "saved-5"
    train(folder, corpus)
    write(folder / "tokenizer_config.json", config())
    tokenizer = T5Tokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(w, **f) for w, f in zip(WORDS, FLAGS)])
    for name in ["spiece.model", "tokenizer_config.json"]:
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    # 6: tokenizer.json beside a spiece.model of other pieces, and transformers 4's settings.
    folder = HERE / "both"
    train(folder, corpus)
    write(folder / "tokenizer_config.json", config())
    T5Tokenizer.from_pretrained(folder).save_pretrained(folder)
    for name in ["spiece.model", "config.json"]:
        (folder / name).unlink()
    train(HERE / "other", corpus[:200], vocab_size=120)
    shutil.move(HERE / "other" / "spiece.model", folder)
    shutil.rmtree(HERE / "other")
    write(folder / "config.json", {"model_type": "switch_transformers", "tokenizer_class": "T5Tokenizer"})
    table = decoder(310)
    write(folder / "tokenizer_config.json", config(
        added_tokens_decoder={k: table[k] for k in sorted(table, reverse=True)}, clean_up_tokenization_spaces=True,
        additional_special_tokens=["<extra_id_0>", "wh"]))
    # 7: tokenizer.json alone, with odd scores and everything in it that is not used.
    folder = HERE / "json-alone"
    train(folder, corpus, plain=True)
    write(folder / "tokenizer_config.json", config())
    tokenizer = T5Tokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(w, **f) for w, f in zip(WORDS, reversed(FLAGS))])
    tokenizer.save_pretrained(folder)
    for name in ["spiece.model", "tokenizer_config.json"]:
        (folder / name).unlink()
    content = json.loads((folder / "tokenizer.json").read_text())
    generator = random.Random(7)
    for piece in content["model"]["vocab"][3:300]:
        piece[1] = struct.unpack("<f", struct.pack("<f", piece[1] * generator.uniform(0.3, 1.7)))[0]
    content["model"]["unk_id"] = 0
    content["truncation"] = dict(direction="Right", max_length=3, strategy="LongestFirst", stride=0)
    content["padding"] = dict(strategy=dict(Fixed=9), direction="Left", pad_to_multiple_of=None, pad_id=0, pad_type_id=0,
                              pad_token="<pad>")
    content["normalizer"] = dict(type="Lowercase")
    content["pre_tokenizer"] = dict(type="Whitespace")
    content["decoder"] = None
    content["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    # 8: special tokens are plain text.
    folder = HERE / "split-special"
    train(folder, corpus)
    write(folder / "tokenizer_config.json", config(split_special_tokens=True, added_tokens_decoder=decoder(310),
                                                   extra_special_tokens=["horse", "<new>"], cls_token="<cls>"))


def make_texts(generator, corpus):
    words = " ".join(corpus).split()
    spaces = [" ", "", "  ", "\n", "\t", "\u00a0", " \n ", "\u3000", "\u200b", "\u00ad"]
    glue = ["", "a", "Z", ".", ",", "'", "\u0301", "_", "\u200d", "9", "\u65e5", "!", "-", " . ", " n't", " 's", "\u2581"]
    literals = WORDS + [w.lower() for w in WORDS] + [w.upper() for w in WORDS] + [
        "<extra_id_0>", "<extra_id_7>", "<extra_id_10>", "</s>", "<pad>", "<unk>", "<s>", "<cls>", "<new>",
        "\uff1ctag\uff1e", "\uff1cpad\uff1e", "Fu", "cafe", "Cafe\u0301"]
    while True:
        parts = []
        for _ in range(generator.randint(1, 6)):
            parts.append(generator.choice(words) if generator.random() < 0.25 else generator.choice(literals))
            parts.append(generator.choice(spaces) if generator.random() < 0.6 else generator.choice(glue))
        yield "".join(parts)


def encodings(tokenizer, generator, corpus):
    cases, failed = {}, 0
    for text in make_texts(generator, corpus):
        if len(cases) == TEXTS:
            return [[text, *case] for text, case in cases.items()], failed
        try:
            ids = tokenizer(text).input_ids
        except BaseException as error:  # what a panic of the library becomes is no Exception
            if "bad split" not in str(error):
                raise
            failed += 1
            continue
        cases[text] = (ids, tokenizer.decode(ids))


def main():
    corpus = [line for line in (pathlib.Path(sys.argv[1]) / "scenes.txt").read_text().splitlines() if line.strip()]
    shutil.rmtree(HERE, ignore_errors=True)
    make_tokenizers(corpus)
    total = 0
    for index, folder in enumerate(sorted(HERE.iterdir())):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        generator = random.Random(1300 + index)
        texts, failed = encodings(tokenizer, generator, corpus)
        sequences = [[generator.choice([0, 1, 2, 3, generator.randrange(len(tokenizer) + 3),
                                        generator.randrange(300, len(tokenizer)), generator.randrange(300)])
                      for _ in range(generator.randint(1, 12))] for _ in range(SEQUENCES)]
        decodings = [{"ids": ids, "text": tokenizer.decode(ids), "plain": tokenizer.decode(ids, skip_special_tokens=True)}
                     for ids in sequences]
        content = {"size": len(tokenizer), "texts": texts, "decodings": decodings}
        path = folder / "expected.json"
        path.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")
        total += len(texts)
        print(f"{folder.name}: {len(tokenizer)} ids, {len(texts)} texts ({failed} failed), {len(sequences)} sequences")
    print(f"{total} texts, {sum(f.stat().st_size for f in HERE.rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()
