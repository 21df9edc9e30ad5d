# SPDX-License-Identifier: Apache-2.0
"""Sentinels: the marks that T5 models answer with."""

from __future__ import annotations

import re
from typing import Dict

_SENTINEL = re.compile(r"<extra_id_(\d{1,9})>")
_SPECIAL = re.compile(r"</s>|<pad>|<unk>")


def spans(answer: str) -> Dict[int, str]:
    """The texts of an answer by the number of the sentinel before each.

    >>> spans("<extra_id_0> kingdom<extra_id_1></s>")
    {0: 'kingdom', 1: ''}

    :param answer: A generation's text. Where a sentinel occurs twice, its first text counts.
    """
    found: Dict[int, str] = {}
    marks = list(_SENTINEL.finditer(answer))
    for mark, following in zip(marks, [*marks[1:], None]):
        text = answer[mark.end() : following.start() if following is not None else len(answer)]
        found.setdefault(int(mark[1]), _SPECIAL.sub("", text).strip())
    return found


def fill(prompt: str, answer: str) -> str:
    """The prompt with an answer's texts in place of its sentinels.

    >>> fill("my <extra_id_0> for a horse!", "<extra_id_0> kingdom<extra_id_1></s>")
    'my kingdom for a horse!'

    :param prompt: A text with sentinels. Those that the answer does not have stay.
    :param answer: A generation's text.
    """
    texts = spans(answer)
    return _SENTINEL.sub(lambda mark: texts.get(int(mark[1]), mark[0]), prompt)
