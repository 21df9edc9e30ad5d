# SPDX-License-Identifier: Apache-2.0
"""Discovers a server's services by reflection alone, resolves every type that they use, and calls the server.

usage: reflection_client.py ADDRESS [TEXT]

Asks with grpcio-reflection (v1alpha) and, message by message, with v1. With TEXT, calls switchyard.v1.Gateway.Generate.
Prints the results as JSON.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE = 60


def ask(channel, version, *requests):
    """The answers to questions on one stream; the messages of v1 are those of v1alpha under another name."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=PATIENCE))


def messages_of(message, found):
    """A message's type and, recursively, those of its fields."""
    if message.full_name not in found:
        found[message.full_name] = message
        for field in message.fields:
            if field.message_type is not None:
                messages_of(field.message_type, found)


def resolve(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    services = list(database.get_services())
    messages = {}
    methods = []
    for name in services:
        service = pool.FindServiceByName(name)
        for method in service.methods:
            methods.append(method.full_name)
            messages_of(method.input_type, messages)
            messages_of(method.output_type, messages)
    # Every symbol once more, requested by name with an empty pool.
    for name in messages:
        fresh = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        if fresh.FindMessageTypeByName(name).full_name != name:
            raise SystemExit(f"{name} resolved to something else")
    for name in methods:
        fresh = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        fresh.FindMethodByName(name)
    return pool, services, sorted(messages), methods


def generate(channel, pool, text):
    method = pool.FindMethodByName("switchyard.v1.Gateway.Generate")
    request = message_factory.GetMessageClass(method.input_type)(text=text)
    call = channel.unary_unary(
        "/switchyard.v1.Gateway/Generate",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    response = call(request, timeout=PATIENCE)
    return [list(generation.token_ids) for generation in response.generations]


def main():
    address, *text = sys.argv[1:]
    request = reflection_pb2.ServerReflectionRequest
    with grpc.insecure_channel(address) as channel:
        pool, services, messages, methods = resolve(channel)
        answers = {}
        for version in ("v1", "v1alpha"):
            listed, missing, numbers, extension, nothing = ask(
                channel, version,
                request(host="h", list_services=""),
                request(file_containing_symbol="no.Such"),
                request(all_extension_numbers_of_type="grpc.health.v1.HealthCheckRequest"),
                request(file_containing_extension=reflection_pb2.ExtensionRequest(
                    containing_type="grpc.health.v1.HealthCheckRequest", extension_number=9)),
                request(),
            )
            answers[version] = {
                "services": [service.name for service in listed.list_services_response.service],
                "host": listed.valid_host,
                "errors": [answer.error_response.error_code for answer in (missing, extension, nothing)],
                "extensions": list(numbers.all_extension_numbers_response.extension_number),
            }
        answer = {"services": services, "messages": messages, "methods": methods, "versions": answers}
        if text:
            answer["token_ids"] = generate(channel, pool, text[0])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
