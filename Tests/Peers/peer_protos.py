# SPDX-License-Identifier: Apache-2.0
"""Generates Python code from .proto files into a temporary folder and puts it on the module path."""

import atexit
import os
import shutil
import sys
import tempfile

from grpc_tools import protoc

HERE = os.path.dirname(os.path.abspath(__file__))
PROTOS = os.path.join(HERE, "..", "..", "Protos")
GATEWAY = ["switchyard/v1/types.proto", "switchyard/v1/gateway.proto"]
INTEROP = ["interop/empty.proto", "interop/messages.proto", "interop/test.proto"]


def compile_protos(root, files, plugin="--grpc_python_out", *options):
    out = tempfile.mkdtemp(prefix="switchyard-peer-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    code = protoc.main(["protoc", f"-I{root}", f"--python_out={out}", *options, f"{plugin}={out}", *files])
    if code != 0:
        raise SystemExit(f"protoc failed with {code}")
    sys.path.insert(0, out)


def compile_interop():
    compile_protos(os.path.join(HERE, "protos"), INTEROP)
