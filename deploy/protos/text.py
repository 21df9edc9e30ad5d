# SPDX-License-Identifier: Apache-2.0
"""Lines of Swift, laid out as `swift format` lays them out."""

import textwrap

LINE = 120


def documentation(indent, *paragraphs):
    """A documentation comment: the first sentence by itself, then the rest, wrapped."""
    first, stop, rest = paragraphs[0].partition(". ")
    lines = []
    for paragraph in filter(None, [first + stop.rstrip(), rest, *paragraphs[1:]]):
        lines += ["///"] if lines else []
        lines += textwrap.wrap(
            paragraph,
            LINE - len(indent),
            initial_indent="/// ",
            subsequent_indent="/// ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [indent + line for line in lines]


def call(indent, head, arguments, tail=""):
    """`head(arguments)tail`, with a line for each argument if it does not fit on one."""
    line = f"{indent}{head}({', '.join(arguments)}){tail}"
    if len(line) <= LINE:
        return [line]
    inside = [f"{indent}    {argument}," for argument in arguments]
    inside[-1] = inside[-1][:-1]
    return [f"{indent}{head}(", *inside, f"{indent}){tail}"]


def assign(indent, target, value):
    """`target = value`, with the value on a line of its own if it does not fit."""
    line = f"{indent}{target} = {value}"
    return [line] if len(line) <= LINE else [f"{indent}{target} =", f"{indent}    {value}"]


def chain(indent, head, tail):
    """`head.tail`, with the tail on a line of its own if it does not fit."""
    line = f"{indent}{head}{tail}"
    return [line] if len(line) <= LINE else [f"{indent}{head}", f"{indent}    {tail}"]
