# SPDX-License-Identifier: Apache-2.0
"""Answers: the ids of transformers, of the command line and of gRPC without this package's clients."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Dict, List

import grpc
import numpy
import pytest

from switchyard import (
    DType,
    EncodeInput,
    FinishReason,
    HealthStatus,
    Input,
    InvalidArgumentError,
    LocalCluster,
    NotFoundError,
    PartialError,
    ReplicaState,
    ResourceExhaustedError,
    ScoreInput,
    Stack,
    Switchyard,
)
from switchyard._options import GenerationParameters
from switchyard.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2

from conftest import PROMPT

Prompts = List[Dict[str, Any]]

#: Parameters in both forms.
SEARCHES: List[Dict[str, Any]] = [
    {},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5, "early_stopping": True},
    {"do_sample": True, "seed": 7, "temperature": 1.5, "top_k": 20, "num_return_sequences": 2},
    {"max_new_tokens": 6, "min_new_tokens": 6, "repetition_penalty": 1.3, "top_logprobs": 2},
]


def raw(parameters: Dict[str, Any]) -> gateway_pb2.GenerationParameters:
    """The protocol's form of the parameters above."""
    message = gateway_pb2.GenerationParameters()
    for name, value in parameters.items():
        setattr(message, name, gateway_pb2.ALWAYS if value is True and name == "early_stopping" else value)
    return message


def test_generates_the_ids_of_transformers(client: Switchyard, prompts: Prompts) -> None:
    for prompt in prompts:
        result = client.generate(prompt["prompt"])
        assert list(result.token_ids) == prompt["token_ids"]
        assert result.usage.output_tokens == len(result.token_ids)
        assert result.usage.dropped == ()


def test_generates_the_ids_of_the_command(client: Switchyard, binary: str, prompts: Prompts) -> None:
    texts = [prompt["prompt"] for prompt in prompts[:3]]
    for text in texts:
        command = [binary, "generate", "--endpoint", client.address, "--json", text]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        printed = json.loads(run.stdout)
        generation = client.generate(text).generations[0]
        (expected,) = printed["generations"]
        assert list(generation.token_ids) == expected["token_ids"]
        assert generation.text == expected["text"]


@pytest.mark.parametrize("parameters", SEARCHES)
def test_generates_what_the_stub_gets(local: LocalCluster, client: Switchyard, parameters: Dict[str, Any]) -> None:
    with grpc.insecure_channel(local.address) as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)
        request = gateway_pb2.GenerateRequest(text=PROMPT, parameters=raw(parameters))
        expected = stub.Generate(request, timeout=60)
    result = client.generate(PROMPT, **parameters)
    assert [list(generation.token_ids) for generation in result.generations] == [
        list(generation.token_ids) for generation in expected.generations
    ]
    assert [generation.score for generation in result.generations] == [
        generation.score for generation in expected.generations
    ]
    assert result.seed == (7 if "seed" in parameters else None)
    if "top_logprobs" in parameters:
        logprobs = result.generations[0].logprobs
        assert [entry.token_id for entry in logprobs] == list(result.token_ids)
        assert all(len(entry.top) == 2 and entry.top[0].logprob >= entry.top[1].logprob for entry in logprobs)


@pytest.mark.parametrize("parameters", SEARCHES[:1] + SEARCHES[2:])
def test_streamed_texts_join_to_the_whole(client: Switchyard, parameters: Dict[str, Any]) -> None:
    with client.generate_stream(PROMPT, **parameters) as stream:
        tokens = list(stream)
        result = stream.result()
    whole = client.generate(PROMPT, **parameters)
    for index, generation in enumerate(whole.generations):
        own = [token for token in tokens if token.sequence == index]
        assert tuple(token.token_id for token in own) == generation.token_ids
        assert "".join(token.text for token in own) == generation.text
    assert [generation.text for generation in result.generations] == [
        generation.text for generation in whole.generations
    ]


def test_token_ids_are_inputs_too(client: Switchyard) -> None:
    encoded = client.encode(PROMPT)
    expected = client.generate(PROMPT)
    forms: List[Input] = [encoded.token_ids, list(encoded.token_ids), numpy.array(encoded.token_ids)]
    for ids in forms:
        result = client.generate(ids)
        assert result.token_ids == expected.token_ids
        with pytest.raises(ValueError, match="no sentinels to fill"):
            result.filled
    assert expected.filled == "A horse! a horse! my kingdom for a horse!"
    assert expected.generations[0].spans == {0: "kingdom", 1: ""}
    prefixed = client.generate(PROMPT, decoder_prefix="<extra_id_0> kingdom")
    assert prefixed.token_ids == expected.token_ids[2:]


def test_finish_reasons(client: Switchyard) -> None:
    assert client.generate(PROMPT).generations[0].finish_reason is FinishReason.END_OF_SEQUENCE
    assert client.generate(PROMPT, max_new_tokens=2).generations[0].finish_reason is FinishReason.LENGTH
    assert client.generate(PROMPT, stop="king").generations[0].finish_reason is FinishReason.STOP
    assert client.generate(PROMPT, stop=["queen", "dom"]).generations[0].finish_reason is FinishReason.STOP


def test_every_parameter_of_the_protocol_is_an_argument() -> None:
    fields = {field.name for field in gateway_pb2.GenerationParameters.DESCRIPTOR.fields}
    assert set(GenerationParameters.__annotations__) == fields


def test_parameters_of_other_forms(client: Switchyard) -> None:
    plain = client.generate(PROMPT)
    kingdom = plain.token_ids[1]
    assert kingdom not in client.generate(PROMPT, bad_words_ids=[[kingdom]]).token_ids
    assert kingdom not in client.generate(PROMPT, suppress_tokens=[kingdom]).token_ids
    assert kingdom not in client.generate(PROMPT, sequence_bias={(kingdom,): -100.0}).token_ids
    assert client.generate(PROMPT, eos_token_id=kingdom).token_ids == plain.token_ids[:2]
    assert client.generate(PROMPT, eos_token_id=[5, kingdom]).token_ids == plain.token_ids[:2]
    assert client.generate(PROMPT, forced_bos_token_id=kingdom).token_ids[0] == kingdom
    forced = client.generate(PROMPT, max_new_tokens=2, forced_eos_token_id=1)
    assert forced.token_ids == (plain.token_ids[0], 1)
    assert client.generate(PROMPT, begin_suppress_tokens=[plain.token_ids[0]]).token_ids[0] != plain.token_ids[0]
    decayed = client.generate(PROMPT, min_new_tokens=0, exponential_decay_length_penalty=(1, 50.0))
    assert decayed.token_ids[-1] == 1 and len(decayed.token_ids) <= len(plain.token_ids)
    beams = client.generate(PROMPT, num_beams=2, early_stopping="never", skip_scores=True, priority="high")
    assert beams.token_ids == plain.token_ids


def test_hidden_states(local: LocalCluster, client: Switchyard) -> None:
    model = client.model()
    result = client.encode(PROMPT)
    assert result.hidden_states.shape == (len(result.token_ids), model.d_model)
    assert result.hidden_states.dtype == numpy.float32
    with grpc.insecure_channel(local.address) as channel:
        request = gateway_pb2.EncodeRequest(text=PROMPT)
        expected = gateway_pb2_grpc.GatewayStub(channel).Encode(request, timeout=60)
    assert result.hidden_states.tobytes() == expected.hidden_states.data
    mean = client.encode(PROMPT, pooling="mean")
    assert mean.hidden_states.shape == (model.d_model,)
    assert numpy.allclose(mean.hidden_states, result.hidden_states.mean(axis=0), atol=1e-5)


def test_several_inputs_are_what_each_is_alone(client: Switchyard, prompts: Prompts) -> None:
    # More than one call takes.
    assert client.model().max_inputs == 64
    texts = [prompt["prompt"] for prompt in prompts] * 5
    encoded = client.encode_many(texts)
    assert len(encoded) == len(texts) == 75
    for text, one in list(zip(texts, encoded))[:: len(prompts) - 1]:
        alone = client.encode(text)
        assert one.hidden_states.tobytes() == alone.hidden_states.tobytes() and one.token_ids == alone.token_ids
    pairs = [(prompt["prompt"], prompt["answer"]) for prompt in prompts]
    scored = client.score_many(pairs, inputs_per_call=4)
    alone_scored = [client.score(text, target) for text, target in pairs]
    assert [one.total_logprob for one in scored] == [one.total_logprob for one in alone_scored]
    assert client.encode_many([]) == [] and client.score_many([]) == []


def test_routes_replay_a_generation(client: Switchyard) -> None:
    result = client.generate(PROMPT, return_routes=True)
    (generation,) = result.generations
    ways = {"encoder_routes": result.encoder_routes, "decoder_routes": generation.decoder_routes}
    encoder, decoder = result.encoder_routes, generation.decoder_routes
    assert encoder is not None and decoder is not None
    assert (encoder.stack, decoder.stack) == (Stack.ENCODER, Stack.DECODER)
    assert encoder.layers == (1, 3) and encoder.experts.shape == (result.usage.input_tokens, 2)
    assert encoder.probabilities is not None and encoder.probabilities.shape == encoder.experts.shape
    assert not encoder.drop_reasons.any() and int(encoder.experts.max()) < 8
    again = client.score(PROMPT, generation.token_ids, encoder_routes=encoder, decoder_routes=decoder)
    assert numpy.float32(again.total_logprob / len(generation.token_ids)) == numpy.float32(generation.score)
    (many,) = client.score_many([ScoreInput(PROMPT, generation.token_ids, **ways)])
    assert many.total_logprob == again.total_logprob
    # Another way gives another score: the routes are used.
    other = type(encoder)(encoder.stack, encoder.layers, (encoder.experts + 1) % 8, None, encoder.drop_reasons)
    moved = client.score(PROMPT, generation.token_ids, encoder_routes=other)
    assert moved.total_logprob != again.total_logprob
    (states,) = client.encode_many([EncodeInput(PROMPT, encoder_routes=other)])
    assert not numpy.array_equal(states.hidden_states, client.encode(PROMPT).hidden_states)
    table = encoder.to_html(["<b>"] * encoder.tokens)
    assert table.count("<tr>") == encoder.tokens + 1 and "&lt;b&gt;" in table and "<b>" not in table
    with pytest.raises(ValueError, match=r"must have \(\d+, 1\): \[tokens, layers\]"):
        client.encode(PROMPT, encoder_routes=type(encoder)(encoder.stack, (1,), encoder.experts, None, encoder.drop_reasons))


def test_scores_with_losses_and_logits(client: Switchyard) -> None:
    target = "<extra_id_0> kingdom<extra_id_1>"
    result = client.score(PROMPT, target, top_logprobs=1, return_logits=True, return_router_losses=True)
    assert result.logits is not None and result.logits.shape == (len(result.logprobs), 2048)
    exact = result.logits.astype(numpy.float64)
    logprobs = exact - numpy.log(numpy.exp(exact).sum(axis=1, keepdims=True))
    expected = [logprobs[row, entry.token_id] for row, entry in enumerate(result.logprobs)]
    assert numpy.allclose([entry.logprob for entry in result.logprobs], expected, atol=1e-4)
    assert [int(row.argmax()) for row in result.logits] == [entry.top[0].token_id for entry in result.logprobs]
    assert result.loss == pytest.approx(-result.total_logprob / len(result.logprobs))
    losses = result.router_losses
    assert losses is not None and len(losses.layers) == 4
    assert losses.z_loss == pytest.approx(sum(layer.z_loss for layer in losses.layers))


def test_receipts_verify(client: Switchyard) -> None:
    receipt = client.generate(PROMPT, return_receipt=True).receipt
    assert receipt is not None and receipt.version == 1
    assert receipt.model.fingerprint == client.model().fingerprint
    assert list(receipt.generations[0].token_ids) == list(client.generate(PROMPT).token_ids)


def test_descriptions(client: Switchyard) -> None:
    client.generate(PROMPT)
    model, cluster = client.model(), client.cluster()
    assert (model.name, model.experts_per_layer, model.d_model) == ("switch-mini", 8, 128)
    assert model.weight_dtype is DType.BFLOAT16 and str(model.weight_dtype) == "bfloat16"
    assert [layer.experts for layer in model.sparse_layers] == [tuple(range(8))] * 4
    assert cluster.complete and cluster.model_fingerprint == model.fingerprint
    assert [pool.name for pool in cluster.pools] == ["pool-0", "pool-1"]
    assert all(replica.state is ReplicaState.READY for pool in cluster.pools for replica in pool.replicas)
    assert cluster.routed_tokens > 0 and sum(cluster.expert_load[0].rows) > 0
    assert client.health() is HealthStatus.SERVING
    assert client.health("switchyard.v1.Gateway") is HealthStatus.SERVING
    with pytest.raises(NotFoundError, match='no service "switchyard.v1.Nobody"'):
        client.health("switchyard.v1.Nobody")


def test_errors_carry_the_code_and_the_sentence(client: Switchyard) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.generate(PROMPT, do_sample=True, temperature=-1.0)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT and caught.value.attempts == 1
    assert caught.value.message == "parameters.temperature: must be positive and finite, but is -1.0"
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ResourceExhaustedError, match="more than 2048 tokens") as exhausted:
        client.generate("a " * 3000)
    # Over a limit, so not retried: no time to come back.
    assert exhausted.value.retry_after is None and exhausted.value.attempts == 1
    with pytest.raises(InvalidArgumentError, match=r"inputs\[1\]"):
        client.encode_many(["a", [2**31]])


def test_an_input_without_an_answer_leaves_the_others_theirs() -> None:
    from switchyard import _calls

    status = gateway_pb2.InputStatus(code=14, message="no host")
    tensor = types_pb2.Tensor(dtype=types_pb2.FLOAT32, shape=[1, 2], data=bytes(8))
    answer = gateway_pb2.EncodeResponse(
        results=[gateway_pb2.EncodeResult(hidden_states=tensor), gateway_pb2.EncodeResult(status=status)]
    )
    part = _calls.encode_many(["a", "b"], {}).convert(answer)
    with pytest.raises(PartialError) as caught:
        _calls.joined([part, part])
    assert sorted(caught.value.errors) == [1, 3] and caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert [result is None for result in caught.value.results] == [False, True, False, True]
    assert "2 of 4 inputs have no answer; input 1: no host" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"max_new_token": 1}, TypeError, "takes no argument max_new_token; did you mean max_new_tokens?"),
        ({"pooling": "mean"}, TypeError, "takes no argument pooling"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens is -1"),
        ({"max_new_tokens": "two"}, TypeError, "max_new_tokens is 'two'"),
        ({"priority": "urgent"}, ValueError, "priority is 'urgent', but must be one of low, normal, high"),
        ({"early_stopping": "later"}, ValueError, "early_stopping is 'later'"),
        ({"early_stopping": 1}, ValueError, "early_stopping is 1"),
        ({"stop": 3}, TypeError, "stop is 3"),
        ({"bad_words_ids": [["x"]]}, TypeError, "bad_words_ids must be"),
        ({"suppress_tokens": [-1]}, ValueError, "suppress_tokens must be"),
        ({"queue_timeout": -1}, ValueError, "queue_timeout is -1"),
        ({"decoder_prefix": [1.5]}, TypeError, "decoder_prefix must be text or token ids"),
    ],
)
def test_wrong_arguments(client: Switchyard, options: Dict[str, Any], kind: type, text: str) -> None:
    with pytest.raises(kind, match=text.replace("?", r"\?")):
        client.generate(PROMPT, **options)


def test_a_closed_client_says_so(local: LocalCluster) -> None:
    client = Switchyard(local.address)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.generate(PROMPT)
