# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of a gateway share: a cluster on this machine, messages in protobuf's encoding, and h2load."""

import contextlib
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

PROMPT = "A horse! a horse! my <extra_id_0> for a horse!"
GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def field(number, content):
    """A field of bytes; number and length below 16 and 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def varint(number, value):
    """A field of a number; the field's number below 16."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([number << 3, *digits, value])


def grpc_frame(message):
    return b"\0" + struct.pack(">I", len(message)) + message


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_cluster(switchyard, model):
    """Starts a cluster on this machine (`switchyard up`); gives the addresses of gRPC and of HTTP."""
    if not shutil.which("h2load"):
        sys.exit("h2load is not here; install Debian's nghttp2-client")
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [switchyard, "up", model, "--listen", grpc, "--http-listen", http, "--admin-listen", f"127.0.0.1:{free_port()}"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as cluster:
        try:
            for attempt in range(300):
                try:
                    urllib.request.urlopen(f"http://{http}/health", timeout=2)
                    break
                except OSError:
                    if cluster.poll() is not None or attempt == 299:
                        log.seek(0)
                        sys.exit("the cluster does not answer:\n" + log.read().decode(errors="replace"))
                    time.sleep(0.1)
            yield grpc, http
        finally:
            cluster.terminate()


def h2load(address, path, body, arguments, requests):
    """Asks for the same again and again; fails if an answer has another status than 200.

    Returns requests per second, and how long the whole program took.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["h2load", "-n", str(requests), "-t", "1", "-d", file.name, *arguments, f"http://{address}{path}"]
        start = time.monotonic()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.monotonic() - start
    good = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
    if good != requests:
        sys.exit(f"{path}: {good} of {requests} answers have the status 200:\n{output}")
    return float(re.search(r"([\d.]+) req/s", output).group(1)), seconds


def row(name, values, baseline=None):
    """A row of a Markdown table: the median with its range, and its share of the median of others."""
    middle = statistics.median(values)
    share = f"{100 * middle / statistics.median(baseline):.0f} %" if baseline else ""
    return f"| {name} | {middle:.0f} ({min(values):.0f} to {max(values):.0f}) | {share} |"
