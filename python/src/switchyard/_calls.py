# SPDX-License-Identifier: Apache-2.0
"""The calls of a gateway as values, which the synchronous and the asynchronous client make alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Sequence, Tuple, TypeVar, Union

from google.protobuf.message import Message

from switchyard import _health, _options, _requests
from switchyard._descriptions import ClusterInfo, ModelInfo
from switchyard._enums import HealthStatus
from switchyard._errors import InternalError, PartialError, SwitchyardError, from_status
from switchyard._measures import EncodeResult, ScoreResult
from switchyard._options import Input
from switchyard._requests import Options
from switchyard._results import GenerateResult, Routes
from switchyard.v1 import gateway_pb2

Result = TypeVar("Result")

_GATEWAY = "/switchyard.v1.Gateway/"


@dataclass(frozen=True)
class Call(Generic[Result]):
    """A call with one message each way, or with several answers."""

    #: The method's path.
    method: str
    request: Message
    #: Reads an answer's bytes.
    parse: Callable[[bytes], Any]
    #: Makes the result of an answer.
    convert: Callable[[Any], Result]
    #: What the caller said of the call itself.
    options: Options


@dataclass(frozen=True)
class EncodeInput:
    """One of several inputs to encode."""

    #: Text or token ids.
    input: Input
    #: The way through the encoder, instead of the one that the routers choose.
    encoder_routes: Optional[Routes] = None


@dataclass(frozen=True)
class ScoreInput:
    """One of several inputs and the target to score with it."""

    #: Text or token ids.
    input: Input
    #: Text or token ids, without the start token.
    target: Input
    #: The way through the encoder, instead of the one that the routers choose.
    encoder_routes: Optional[Routes] = None
    #: The way through the decoder, instead of the one that the routers choose.
    decoder_routes: Optional[Routes] = None


def generate(input: Input, given: Mapping[str, Any]) -> Call[GenerateResult]:
    """A call that returns the answer whole."""
    options = _requests.checked("generate", _options.GenerateOptions, given)
    prompt = input if isinstance(input, str) else None
    return Call(
        method=_GATEWAY + "Generate",
        request=_requests.generate(input, options),
        parse=gateway_pb2.GenerateResponse.FromString,
        convert=lambda message: GenerateResult.of(message, prompt),
        options=_requests.call_options(options),
    )


def generate_stream(input: Input, given: Mapping[str, Any]) -> Call[GenerateResult]:
    """A call that returns tokens as they are chosen; its result is made of the last event's response."""
    options = _requests.checked("generate_stream", _options.GenerateOptions, given)
    prompt = input if isinstance(input, str) else None
    return Call(
        method=_GATEWAY + "GenerateStream",
        request=_requests.generate(input, options),
        parse=gateway_pb2.GenerateEvent.FromString,
        convert=lambda message: GenerateResult.of(message, prompt),
        options=_requests.call_options(options),
    )


def encode(input: Input, given: Mapping[str, Any]) -> Call[EncodeResult]:
    """A call that encodes one input."""
    options = _requests.checked("encode", _options.EncodeOneOptions, given)
    pooled = options.get("pooling") == "mean"
    return Call(
        method=_GATEWAY + "Encode",
        request=_requests.encode([(input, {})], options, many=False),
        parse=gateway_pb2.EncodeResponse.FromString,
        convert=lambda message: EncodeResult.of(message, pooled),
        options=_requests.call_options(options),
    )


def score(input: Input, target: Input, given: Mapping[str, Any]) -> Call[ScoreResult]:
    """A call that scores one target."""
    options = _requests.checked("score", _options.ScoreOneOptions, given)
    return Call(
        method=_GATEWAY + "Score",
        request=_requests.score([(input, target, {})], options, many=False),
        parse=gateway_pb2.ScoreResponse.FromString,
        convert=ScoreResult.of,
        options=_requests.call_options(options),
    )


#: The results of some of several inputs, and the errors of the others, by index within the call.
Part = Tuple[List[Optional[Result]], Dict[int, SwitchyardError]]


def encode_many(
    inputs: Sequence[Union[Input, EncodeInput]], given: Mapping[str, Any]
) -> Call[Part[EncodeResult]]:
    """A call that encodes several inputs."""
    options = _requests.checked("encode_many", _options.EncodeOptions, given)
    pooled = options.get("pooling") == "mean"
    items = [item if isinstance(item, EncodeInput) else EncodeInput(item) for item in inputs]
    pairs = [(item.input, _routing(encoder_routes=item.encoder_routes)) for item in items]
    return Call(
        method=_GATEWAY + "Encode",
        request=_requests.encode(pairs, options, many=True),
        parse=gateway_pb2.EncodeResponse.FromString,
        convert=lambda message: _part(message, len(items), lambda result: EncodeResult.of(result, pooled)),
        options=_requests.call_options(options),
    )


def score_many(
    inputs: Sequence[Union[Tuple[Input, Input], ScoreInput]], given: Mapping[str, Any]
) -> Call[Part[ScoreResult]]:
    """A call that scores several targets."""
    options = _requests.checked("score_many", _options.ScoreOptions, given)
    items = [item if isinstance(item, ScoreInput) else ScoreInput(*item) for item in inputs]
    triples = [
        (item.input, item.target, _routing(encoder_routes=item.encoder_routes, decoder_routes=item.decoder_routes))
        for item in items
    ]
    return Call(
        method=_GATEWAY + "Score",
        request=_requests.score(triples, options, many=True),
        parse=gateway_pb2.ScoreResponse.FromString,
        convert=lambda message: _part(message, len(items), ScoreResult.of),
        options=_requests.call_options(options),
    )


def _routing(**routes: Optional[Routes]) -> Options:
    return {name: value for name, value in routes.items() if value is not None}


def _part(message: Any, count: int, convert: Callable[[Any], Result]) -> Part[Result]:
    """The results of an answer with several, one for each input."""
    if len(message.results) != count:
        raise InternalError(f"the gateway's answer has {len(message.results)} results for {count} inputs")
    results: List[Optional[Result]] = []
    errors: Dict[int, SwitchyardError] = {}
    for index, result in enumerate(message.results):
        if result.status.code:
            errors[index] = from_status(result.status.code, result.status.message)
            results.append(None)
        else:
            results.append(convert(result))
    return results, errors


def joined(parts: Sequence[Part[Result]]) -> List[Result]:
    """The results of several calls, in order.

    :raises PartialError: If some inputs have no answer.
    """
    results: List[Optional[Result]] = []
    errors: Dict[int, SwitchyardError] = {}
    for part, failed in parts:
        errors.update({len(results) + index: error for index, error in failed.items()})
        results.extend(part)
    if errors:
        raise PartialError(results, errors)
    return [result for result in results if result is not None]


def slices(inputs: Sequence[Any], size: int) -> List[Sequence[Any]]:
    """The inputs in parts of at most a size."""
    if size < 1:
        raise ValueError(f"inputs_per_call is {size}, but must be at least 1")
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


def model(given: Mapping[str, Any]) -> Call[ModelInfo]:
    """A call that describes the model."""
    return Call(
        method=_GATEWAY + "DescribeModel",
        request=gateway_pb2.DescribeModelRequest(),
        parse=gateway_pb2.ModelDescription.FromString,
        convert=ModelInfo.of,
        options=_requests.checked("model", _options.CallOptions, given),
    )


def cluster(given: Mapping[str, Any]) -> Call[ClusterInfo]:
    """A call that describes the cluster."""
    return Call(
        method=_GATEWAY + "DescribeCluster",
        request=gateway_pb2.DescribeClusterRequest(),
        parse=gateway_pb2.ClusterDescription.FromString,
        convert=ClusterInfo.of,
        options=_requests.checked("cluster", _options.CallOptions, given),
    )


def health(service: str, given: Mapping[str, Any]) -> Call[HealthStatus]:
    """A call that asks whether a service takes calls."""
    return Call(
        method=_health.METHOD,
        request=_health.request(service),
        parse=_health.Response.FromString,
        convert=_health.status,
        options=_requests.checked("health", _options.CallOptions, given),
    )
