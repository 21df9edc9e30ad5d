# SPDX-License-Identifier: Apache-2.0
"""Makes the protocol's requests from keyword arguments.

What a value may be is for the gateway to say, which names the field and its limit. Checked here is only what would not reach
it: names that it does not know, and values that do not fit a field's type.
"""

from __future__ import annotations

import difflib
import operator
from typing import Any, Dict, FrozenSet, Iterable, Mapping, Sequence, Tuple, Union

from google.protobuf.message import Message

from switchyard import _options
from switchyard._options import Input
from switchyard._results import Routes
from switchyard.v1 import gateway_pb2, types_pb2

_CALL: FrozenSet[str] = frozenset(_options.CallOptions.__annotations__)
_PARAMETERS: FrozenSet[str] = frozenset(_options.GenerationParameters.__annotations__)
_PRIORITIES = {"low": gateway_pb2.LOW, "normal": gateway_pb2.NORMAL, "high": gateway_pb2.HIGH}
_POOLINGS = {"none": gateway_pb2.PER_TOKEN, "mean": gateway_pb2.MEAN}

Options = Dict[str, Any]


def checked(method: str, kind: type, given: Mapping[str, Any]) -> Options:
    """The options that are given, without those that are None but for the timeout.

    :param method: The method's name, for errors.
    :param kind: The typed dictionary that has the names.
    :param given: The keyword arguments.
    :raises TypeError: If a name is unknown.
    """
    known = _names(kind)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{method}() takes no argument {name}{hint}")
    return {name: value for name, value in given.items() if value is not None or name == "timeout"}


def _names(kind: type) -> FrozenSet[str]:
    # Python 3.9 and later have the inherited names here too.
    return frozenset(kind.__annotations__)


def call_options(options: Options) -> Options:
    """What concerns the call rather than the request."""
    return {name: value for name, value in options.items() if name in _CALL}


def generate(input: Input, options: Options) -> gateway_pb2.GenerateRequest:
    """A request to generate."""
    request = gateway_pb2.GenerateRequest()
    _set_input(request, "input_ids", "text", "input", input)
    for name, value in _fields(request, options).items():
        if name in _PARAMETERS:
            _set_parameter(request.parameters, name, value)
        elif name == "decoder_prefix":
            _set_input(request, "decoder_input_ids", "decoder_text", name, value)
        else:
            _set(request, name, value)
    return request


def encode(
    inputs: Sequence[Tuple[Input, Options]], options: Options, *, many: bool
) -> gateway_pb2.EncodeRequest:
    """A request to encode one input, or several."""
    request = gateway_pb2.EncodeRequest()
    for index, (text, routing) in enumerate(inputs):
        place = f"inputs[{index}]" if many else "input"
        item: Union[gateway_pb2.EncodeRequest, gateway_pb2.EncodeInput] = request.inputs.add() if many else request
        _set_input(item, "input_ids", "text", place, text)
        _set_routes(item, routing)
    for name, value in _fields(request, options).items():
        if name == "pooling":
            value = _choice(name, value, _POOLINGS)
        _set(request, name, value)
    return request


def score(
    inputs: Sequence[Tuple[Input, Input, Options]], options: Options, *, many: bool
) -> gateway_pb2.ScoreRequest:
    """A request to score one target, or several."""
    request = gateway_pb2.ScoreRequest()
    for index, (text, target, routing) in enumerate(inputs):
        place = f"inputs[{index}]: " if many else ""
        item: Union[gateway_pb2.ScoreRequest, gateway_pb2.ScoreInput] = request.inputs.add() if many else request
        _set_input(item, "input_ids", "text", f"{place}input", text)
        _set_input(item, "target_ids", "target_text", f"{place}target", target)
        _set_routes(item, routing)
    for name, value in _fields(request, options).items():
        _set(request, name, value)
    return request


def _fields(request: Any, options: Options) -> Options:
    """Sets what all requests have in common; returns the options that are left."""
    rest: Options = {}
    for name, value in options.items():
        if name in _CALL:
            continue
        if name == "priority":
            request.priority = _choice(name, value, _PRIORITIES)
        elif name == "queue_timeout":
            if not 0 <= value <= 4_294_967:
                raise ValueError(f"queue_timeout is {value} seconds, but must be from 0 to 4294967")
            # Rounded up: a wait of less than a millisecond must not become an unlimited one.
            request.queue_timeout_ms = -int(-value * 1000 // 1)
        elif name in ("strict", "max_dropped_fraction"):
            _set(request.drop_policy, name, value)
        elif name in ("encoder_routes", "decoder_routes"):
            _set_routes(request, {name: value})
        else:
            rest[name] = value
    return rest


def _choice(name: str, value: Any, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    return choices[value]


def _ids(name: str, values: Iterable[int]) -> types_pb2.TokenIds:
    message = types_pb2.TokenIds()
    try:
        message.ids.extend(operator.index(value) for value in values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be text or token ids from 0 to 4294967295: {error}") from None
    return message


def _set_input(message: Any, ids: str, text: str, name: str, value: Input) -> None:
    if isinstance(value, str):
        _set(message, text, value, name)
    else:
        getattr(message, ids).CopyFrom(_ids(name, value))


def _set_routes(message: Any, routing: Options) -> None:
    for name, routes in routing.items():
        if not isinstance(routes, Routes):
            raise TypeError(f"{name} is {type(routes).__name__}, but must be Routes, as an answer has them")
        getattr(message, name).CopyFrom(routes.message())


def _set(message: Message, field: str, value: Any, name: str = "") -> None:
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name or field} is {_short(value)}: {error}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _set_parameter(parameters: gateway_pb2.GenerationParameters, name: str, value: Any) -> None:
    """Sets a parameter, whose value may have another form in Python than in the protocol."""
    if name == "early_stopping":
        kinds = {True: gateway_pb2.ALWAYS, False: gateway_pb2.HEURISTIC, "never": gateway_pb2.NEVER}
        if not isinstance(value, (bool, str)) or value not in kinds:
            raise ValueError(f"early_stopping is {value!r}, but must be True, False or 'never'")
        parameters.early_stopping = kinds[value]
    elif name == "stop":
        try:
            parameters.stop.extend([value] if isinstance(value, str) else value)
        except TypeError as error:
            raise TypeError(f"stop is {_short(value)}, but must be texts: {error}") from None
    elif name == "bad_words_ids":
        parameters.bad_words_ids.SetInParent()
        parameters.bad_words_ids.lists.extend(_ids(name, ids) for ids in value)
    elif name == "sequence_bias":
        parameters.sequence_bias.SetInParent()
        for tokens, bias in value.items():
            entry = parameters.sequence_bias.biases.add()
            entry.tokens.extend(_ids(name, tokens).ids)
            _set(entry, "bias", bias, name)
    elif name == "exponential_decay_length_penalty":
        start, factor = value
        decay = parameters.exponential_decay_length_penalty
        _set(decay, "start_index", start, name)
        _set(decay, "factor", factor, name)
    elif isinstance(getattr(parameters, name), types_pb2.TokenIds):
        ids = [value] if hasattr(value, "__index__") else value
        getattr(parameters, name).CopyFrom(_ids(name, ids))
    else:
        _set(parameters, name, value)
