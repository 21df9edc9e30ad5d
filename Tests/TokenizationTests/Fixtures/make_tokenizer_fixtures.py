#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tokenizer.json: texts, and the ids and decoded texts that transformers gives for them.

Needs transformers 5.23.0, tokenizers 0.23.3 and protobuf. Run it from anywhere:

    python Tests/TokenizationTests/Fixtures/make_tokenizer_fixtures.py MODEL_DIRECTORY

MODEL_DIRECTORY holds the miniature's spiece.model (deploy/models/switch-mini). The texts come from a generator with a
fixed seed, so that a second run writes the same file.
"""

import json
import pathlib
import random
import sys

import tokenizers
import transformers
from transformers import T5Tokenizer

assert transformers.__version__ == "5.23.0", transformers.__version__
assert tokenizers.__version__ == "0.23.3", tokenizers.__version__

SPACES = ["\t", "\n", "\r", "\r\n", "\v", "\f", " ", "\x85", "\xa0", "\u1680", "\u2000", "\u2003", "\u2009", "\u200a",
          "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u2581", "\u180e", "\u2060"]
CONTROLS = [chr(c) for c in list(range(0, 32)) + [0x7f] + list(range(0x80, 0xa0))]
MARKS = ["\u0300", "\u0301", "\u0302", "\u0303", "\u0308", "\u030a", "\u0327", "\u0323", "\u0345", "\u034f", "\u0591",
         "\u064b", "\u0670", "\u093c", "\u094d", "\u0e33", "\u0eb3", "\u3099", "\u309a", "\u20dd", "\u20e3", "\ufe0f",
         "\ufe0e", "\u200d", "\u200c", "\U0001d165", "\U000e0100", "\u0f71", "\u0f72"]
BASES = list("aeiouAEIOUnNcCsSzZyY0129 .") + ["\u212a", "\u212b", "\u2126", "\u1e9b", "\ufb01", "\ufb03", "\u0132",
         "\u01c4", "\u1fb3", "\u1f00", "\u0b95", "\u0915", "\u304b", "\u30ab", "\u1100", "\u1161", "\u11a8", "\uac00",
         "\u3131", "\uff76", "\uff9e", "\uff21", "\u2460", "\u33a5", "\ufdfa", "\u0600", "\u0605", "\u0628", "\u05d0",
         "\u0e01", "\u00b5", "\u00bd", "\u2100", "\u00df", "\U0001d400", "\U0001f1e9", "\U0001f1ea", "\U0002f800"]
PIECES = ["<pad>", "</s>", "<unk>", "<s>", "<extra_id_0>", "<extra_id_1>", "<extra_id_7>", "<extra_id_07>",
          "<extra_id_10>", "<extra_id_42>", "<extra_id_99>", "<extra_id_100>", "<extra_id_-1>", "<extra_id_>",
          "<EXTRA_ID_0>", "<extra_id_0", "extra_id_0>", "<<extra_id_0>>", "< extra_id_0 >", "<extra_id_1><extra_id_2>",
          "<extra_<extra_id_3>id_4>", "<pad", "</s", "<un<unk>k>", "\uff1cpad\uff1e", "\uff1c/s\uff1e",
          "\uff1cunk\uff1e", "\uff1cunk\uff1e\u65e5", "\u65e5\uff1cunk\uff1e", "\uff1cextra_id_0\uff1e",
          "<extra_id_\uff10>", "<extra_id_\u0660>", "\u2581<extra_id_5>\u2581", "<extra\u200b_id_0>", "<extra_id_0\u0301>"]
EMOJI = ["\U0001f600", "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd",
         "\U0001f1e9\U0001f1ea", "\U0001f1e9\U0001f1ea\U0001f1eb", "1\ufe0f\u20e3", "\u00a9", "\u2122",
         "\U0001f3f4\U000e0067\U000e0062\U000e007f"]
SCRIPTS = ["\u65e5\u672c\u8a9e\u306e\u6587", "\ud55c\uad6d\uc5b4", "\u0420\u0443\u0441\u0441\u043a\u0438\u0439",
           "\u0639\u0631\u0628\u064a \u0639\u0631\u0628\u0651\u064a", "\u05e2\u05d1\u05e8\u05d9\u05ea",
           "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\u1f08\u03b8\u03ae\u03bd\u03b1\u03b9",
           "\u202eabc\u202c def", "\u2067\u05d0\u05d1\u2069", "Stra\u00dfe", "na\u00efve caf\u00e9", "cafe\u0301",
           "\uff26\uff55\uff4c\uff4c\uff57\uff49\uff44\uff54\uff48", "\ufb01\ufb02 \ufb03", "\u2168 \u33a5 \u00bd"]
HTML = ["<p>", "</p>", "<br/>", "&lt;s&gt;", "<a href=\"x\">link</a>", "<!-- note -->", "<s>", "</ s>", "&nbsp;"]
LINES = ["Now is the winter of our discontent", "Made glorious summer by this sun of York;",
         "O Romeo, Romeo! wherefore art thou Romeo?", "A horse! a horse! my kingdom for a horse!",
         "But, soft! what light through yonder window breaks?", "ROMEO:", "First Citizen:\nBefore we proceed",
         "translate English to German: That is good.", "summarize: state authorities dispatched crews tuesday",
         "3.14159 1,000,000 50% $9.99 #tag @name a_b c-d e/f", "don't won't it's I'll", "ALL CAPS AND mixedCase",
         "http://example.org/path?q=1&r=2", "tab\tseparated\tvalues", "  leading and trailing  ", "a  b   c    d"]


def random_scalar(generator):
    planes = [(0x20, 0x7e), (0xa0, 0x24f), (0x250, 0x10ff), (0x1100, 0x1fff), (0x2000, 0x2bff), (0x2c00, 0xd7ff),
              (0xe000, 0xffff), (0x10000, 0x1ffff), (0x20000, 0x323af), (0xe0000, 0xe01ef), (0xf0000, 0x10ffff)]
    low, high = generator.choice(planes)
    return chr(generator.randint(low, high))


def make_texts():
    generator = random.Random(523)
    texts = ["", " ", "   ", "\n", "\0", "a\0b", "\u2581", "\u2581\u2581", "a\u2581b", "a \u2581b", "\u2581 a", "a\u2581"]
    texts += LINES + SCRIPTS + PIECES + EMOJI + HTML + SPACES
    texts += ["a" + s + "b" for s in SPACES + CONTROLS]
    texts += [s + "a" + s for s in SPACES]
    texts += [base + mark for base in BASES for mark in MARKS if generator.random() < 0.25]
    texts += [base + first + second + generator.choice(["", "x", " y"])
              for base in BASES for first in MARKS for second in MARKS if generator.random() < 0.008]
    texts += [left + middle + right for left in PIECES[:12] for middle in ["", " ", "a", "\u00e9", "\u0301", "\u2581"]
              for right in PIECES[:12] if generator.random() < 0.2]
    texts += ["x" * 300, "\u65e5" * 200, "\u00e9" * 150, "e" + "\u0301" * 200, "ab" * 400, "\U0001f1e9" * 51,
              "<" * 200, "<extra_id_1" * 30, ".," * 100, "1234567890" * 30, "\r" * 40 + "\n" * 40,
              "unquestionablyincomprehensiblewordwithoutanyspaces" * 8]
    # Runs of a letter can be cut in many equally probable ways.
    texts += [letter * count for letter in "abcdefghijklmnopqrstuvwxyzAEIOST.,-!?'" for count in range(2, 60, 3)]
    alphabets = [SPACES, CONTROLS, MARKS, BASES, PIECES, EMOJI, SCRIPTS, HTML]
    words = " ".join(LINES).split()
    for _ in range(700):
        parts = []
        for _ in range(generator.randint(1, 8)):
            kind = generator.random()
            if kind < 0.35:
                parts.append(generator.choice(words))
            elif kind < 0.5:
                parts.append("".join(random_scalar(generator) for _ in range(generator.randint(1, 6))))
            else:
                parts.append(generator.choice(generator.choice(alphabets)))
            parts.append(generator.choice(["", " ", " ", generator.choice(SPACES)]))
        texts.append("".join(parts))
    for _ in range(300):
        texts.append("".join(random_scalar(generator) for _ in range(generator.randint(1, 12))))
    for _ in range(300):
        texts.append("".join(generator.choice(BASES + MARKS) for _ in range(generator.randint(2, 14))))
    for _ in range(120):
        texts.append(" ".join(generator.choice(words) for _ in range(generator.randint(3, 14))))
    unique = list(dict.fromkeys(texts))
    # JSON carries no unpaired surrogates, and neither does a Swift string.
    return [text for text in unique if not any(0xD800 <= ord(c) < 0xE000 for c in text)]


def make_decodings(tokenizer):
    generator = random.Random(5230)
    sequences = [[], [0], [1], [2], [7], [7, 7], [0, 7, 7], [2047], [2048], [2047, 1902, 2046, 596, 2045, 1],
                 [0, 2047, 1902, 2046, 596, 2045, 1, 0, 0], [5000, 158], [158, 2**31 - 1, 54]]
    for _ in range(250):
        sequences.append([generator.choice([0, 1, 2, 7, generator.randrange(1948), generator.randrange(1948),
                                            generator.randrange(1948), generator.randrange(1948, 2048),
                                            generator.randrange(2048, 2200)])
                          for _ in range(generator.randint(1, 12))])
    return [{"ids": ids, "text": tokenizer.decode(ids), "plain": tokenizer.decode(ids, skip_special_tokens=True)}
            for ids in sequences]


def main():
    tokenizer = T5Tokenizer.from_pretrained(sys.argv[1])
    assert len(tokenizer) == 2048
    texts = make_texts()
    cases = []
    for text in texts:
        ids = tokenizer(text).input_ids
        cases.append([text, ids, tokenizer.decode(ids)])
    content = {"transformers": transformers.__version__, "texts": cases, "decodings": make_decodings(tokenizer)}
    path = pathlib.Path(__file__).with_name("tokenizer.json")
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{len(cases)} texts, {len(content['decodings'])} decodings, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
