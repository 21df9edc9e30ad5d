# SPDX-License-Identifier: Apache-2.0
"""The protocol's own messages and stubs, generated from the project's .proto files.

For calls that the clients of :mod:`switchyard` do not make; ``gateway_pb2_grpc.GatewayStub`` takes any grpcio channel.
"""
