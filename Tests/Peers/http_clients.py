# SPDX-License-Identifier: Apache-2.0
"""Calls a gateway over HTTP with other people's clients, unmodified, and prints what came back as JSON.

usage: http_clients.py COMMAND HTTP_BASE_URL GRPC_ADDRESS PROMPTS_FILE [COUNT]

COMMAND is one of openai, huggingface, litellm, mapping, equal.
"""

import json
import os
import random
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def post(base, path, body):
    """A request of the standard library alone."""
    from urllib.request import Request, urlopen

    data = json.dumps(body).encode()
    with urlopen(Request(base + path, data, {"content-type": "application/json"}), timeout=300) as answer:
        return json.loads(answer.read())


def run_openai(base, prompts):
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key="none", timeout=300, max_retries=0)
    model = client.models.list().data[0].id
    texts = [p["prompt"] for p in prompts]
    report = {"model": model, "retrieved": client.models.retrieve(model).id}
    answer = client.completions.create(model=model, prompt=texts, max_tokens=40, temperature=0, logprobs=2)
    report["texts"] = [c.text for c in answer.choices]
    report["finish"] = sorted({c.finish_reason for c in answer.choices})
    first = answer.choices[0].logprobs
    report["tokens"] = len(first.tokens)
    report["lists"] = sorted({len(first.token_logprobs), len(first.text_offset), len(first.top_logprobs)})
    report["best_first"] = all(abs(max(t.values()) - p) < 1e-6 for t, p in zip(first.top_logprobs, first.token_logprobs))
    report["usage"] = answer.usage.completion_tokens
    chunks = list(
        client.completions.create(
            model=model, prompt=texts[:2], max_tokens=40, stream=True, stream_options={"include_usage": True}
        )
    )
    streamed = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    report["streamed"] = streamed
    report["stream_usage"] = chunks[-1].usage.total_tokens
    sampled = [
        client.completions.create(model=model, prompt=texts[0], temperature=1.0, seed=seed, n=2).choices for seed in (7, 7, 8)
    ]
    report["same_seed"] = [c.text for c in sampled[0]] == [c.text for c in sampled[1]]
    vectors = client.embeddings.create(model=model, input=texts[:2]).data
    report["width"] = sorted({len(v.embedding) for v in vectors})
    # The client asks for base64 unless told otherwise; numbers in text are as short as a float32 allows.
    numbers = client.embeddings.create(model=model, input=texts[0], encoding_format="float").data[0].embedding
    report["embedding"] = [struct.pack("<f", x).hex() for x in vectors[0].embedding]
    report["floats"] = [struct.pack("<f", x).hex() for x in numbers]
    # The answer that was just generated, as the part of a prompt that is scored.
    whole = texts[0] + "</s>" + answer.choices[0].text
    echo = client.completions.create(model=model, prompt=whole, max_tokens=0, echo=True, logprobs=2)
    echoed, given = echo.choices[0].logprobs, len(first.tokens)
    border = echoed.tokens.index("</s>")
    report["echoed"] = {
        "text": echo.choices[0].text,
        "border": border,
        "nulls": sum(p is None for p in echoed.token_logprobs),
        "border_logprob": echoed.token_logprobs[border],
        "generated": echo.usage.completion_tokens,
        # To the same bits: the score of a text is that of its generation.
        "same_score": echoed.tokens[-given:] == first.tokens and echoed.token_logprobs[-given:] == first.token_logprobs,
    }
    errors = {}
    for name, call in {
        "chat": lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}]),
        "model": lambda: client.completions.create(model="gpt-7", prompt="hi"),
        "echo": lambda: client.completions.create(model=model, prompt="hi", echo=True),
        "tokens": lambda: client.completions.create(model=model, prompt="hi", max_tokens=10**6),
    }.items():
        try:
            call()
        except openai.APIStatusError as error:
            errors[name] = [type(error).__name__, error.status_code, error.param, str(error.message)]
    report["errors"] = errors
    return report


def run_huggingface(base, prompts):
    from huggingface_hub import InferenceClient

    client = InferenceClient(base, timeout=300)
    text = prompts[0]["prompt"]
    report = {"text": client.text_generation(text, max_new_tokens=40)}
    details = client.text_generation(text, max_new_tokens=40, details=True)
    report["ids"] = [t.id for t in details.details.tokens]
    report["finish"] = details.details.finish_reason
    report["streamed"] = "".join(client.text_generation(text, max_new_tokens=40, stream=True))
    last = list(client.text_generation(text, max_new_tokens=40, stream=True, details=True))[-1]
    report["last"] = last.generated_text
    report["last_finish"] = last.details.finish_reason
    try:
        client.text_generation(text, temperature=-1.0)
    except Exception as error:  # noqa: BLE001: whichever class the client gives it
        report["error"] = [type(error).__name__, str(error)]
    return report


def run_litellm(base, prompts):
    import litellm

    model = post_free_models(base)
    text = prompts[0]["prompt"]
    answer = litellm.text_completion(
        model=f"text-completion-openai/{model}", prompt=text, api_base=base + "/v1", api_key="none", max_tokens=40
    )
    chunks = litellm.text_completion(
        model=f"text-completion-openai/{model}", prompt=text, api_base=base + "/v1", api_key="none", max_tokens=40, stream=True
    )
    streamed = "".join(choice.text or "" for chunk in chunks for choice in chunk.choices)
    vectors = litellm.embedding(model=f"openai/{model}", input=[text], api_base=base + "/v1", api_key="none")
    return {"text": answer.choices[0].text, "streamed": streamed, "width": len(vectors.data[0]["embedding"])}


def post_free_models(base):
    from urllib.request import urlopen

    with urlopen(base + "/v1/models", timeout=300) as answer:
        return json.loads(answer.read())["data"][0]["id"]


def grpc_side(address):
    import peer_protos

    peer_protos.compile_protos(peer_protos.PROTOS, peer_protos.GATEWAY)
    import grpc
    from switchyard.v1 import gateway_pb2, gateway_pb2_grpc

    return gateway_pb2, gateway_pb2_grpc.GatewayStub(grpc.insecure_channel(address))


def run_mapping(base, address, prompts):
    """protobuf's own reader of its JSON mapping must read every answer as the message that gRPC sends."""
    pb, stub = grpc_side(address)
    from google.protobuf import json_format

    def ask(path, request, answer):
        text = json.dumps(post(base, path, json.loads(json_format.MessageToJson(request))))
        return json_format.Parse(text, answer)

    text = prompts[0]["prompt"]
    report = {}
    request = pb.GenerateRequest(
        text=text, parameters=pb.GenerationParameters(top_logprobs=2), return_routes=True, return_receipt=True
    )
    ours, theirs = ask("/v1/generate", request, pb.GenerateResponse()), stub.Generate(request)
    for response in (ours, theirs):
        for field in ("queue_microseconds", "encode_microseconds", "decode_microseconds"):
            response.usage.ClearField(field)
    report["generate"] = ours == theirs
    request = pb.ScoreRequest(text=text, target_text=prompts[0]["answer"], top_logprobs=1, return_logits=True)
    ours, theirs = ask("/v1/score", request, pb.ScoreResponse()), stub.Score(request)
    report["score"] = ours.logprobs == theirs.logprobs and ours.logits == theirs.logits and len(ours.logits.data) > 0
    request = pb.EncodeRequest(inputs=[pb.EncodeInput(text=text), pb.EncodeInput(text="")], pooling=pb.MEAN)
    ours, theirs = ask("/v1/encode", request, pb.EncodeResponse()), stub.Encode(request)
    report["encode"] = [r.hidden_states for r in ours.results] == [r.hidden_states for r in theirs.results]
    from urllib.request import urlopen

    with urlopen(base + "/v1/model", timeout=300) as answer:
        ours = json_format.Parse(answer.read(), pb.ModelDescription())
    report["model"] = ours == stub.DescribeModel(pb.DescribeModelRequest())
    with urlopen(base + "/v1/cluster", timeout=300) as answer:
        cluster = json_format.Parse(answer.read(), pb.ClusterDescription())
    report["cluster"] = [pool.name for pool in cluster.pools]
    return report


def requests_of(pb, prompts, count):
    """Different requests: searches, seeds, lengths, penalties and inputs."""
    draw = random.Random(7)
    for index in range(count):
        prompt = draw.choice(prompts)["prompt"]
        parameters = pb.GenerationParameters(max_new_tokens=draw.randint(1, 24))
        kind = index % 4
        if kind == 1:
            parameters.do_sample = True
            parameters.temperature = draw.choice([0.5, 1.0, 1.5])
            parameters.top_k = draw.choice([0, 5, 50])
            parameters.seed = draw.getrandbits(64)
            parameters.num_return_sequences = draw.randint(1, 3)
        elif kind == 2:
            parameters.num_beams = draw.randint(2, 4)
        elif kind == 3:
            parameters.repetition_penalty = draw.choice([1.0, 1.5])
            parameters.no_repeat_ngram_size = draw.choice([0, 2])
        yield pb.GenerateRequest(text=prompt[draw.randint(0, 3) :], parameters=parameters)


def run_equal(base, address, prompts, count):
    """Token ids over HTTP must be those over gRPC."""
    pb, stub = grpc_side(address)
    from google.protobuf import json_format

    def differ(request):
        body = json.loads(json_format.MessageToJson(request))
        ours = [g["tokenIds"] for g in post(base, "/v1/generate", body)["generations"]]
        theirs = [list(g.token_ids) for g in stub.Generate(request).generations]
        return ours != theirs

    with ThreadPoolExecutor(8) as pool:
        differences = list(pool.map(differ, requests_of(pb, prompts, count)))
    return {"requests": len(differences), "different": sum(differences)}


def main():
    command, base, address, file = sys.argv[1:5]
    with open(file) as lines:
        prompts = json.load(lines)
    if command == "openai":
        report = run_openai(base, prompts)
    elif command == "huggingface":
        report = run_huggingface(base, prompts)
    elif command == "litellm":
        report = run_litellm(base, prompts)
    elif command == "mapping":
        report = run_mapping(base, address, prompts)
    elif command == "equal":
        report = run_equal(base, address, prompts, int(sys.argv[5]))
    else:
        raise SystemExit(__doc__)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
