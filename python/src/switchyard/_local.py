# SPDX-License-Identifier: Apache-2.0
"""A cluster on this machine, as a child process: ``switchyard up``."""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple, Type, TypedDict, Union

import grpc

from switchyard._errors import LocalClusterError

if TYPE_CHECKING:
    from typing_extensions import Literal, Unpack

    Precision = Literal["checkpoint", "float32", "bfloat16", "int8"]

#: A path, or a hub id in the local cache.
Model = Union[str, "os.PathLike[str]"]

#: The variable that names the program.
BINARY_VARIABLE = "SWITCHYARD_BINARY"

_READY = re.compile(r"ready on (\S+);")
#: Seconds that the program has to finish requests in flight, and then, with what it starts, to end.
_GRACE = 5.0
_PATIENCE = 20.0


class LocalOptions(TypedDict, total=False):
    """How to run a cluster on this machine; ``switchyard up --help`` says more of each."""

    #: Number of pools, each with its own experts.
    pools: int
    #: Expert hosts of each pool.
    replicas: int
    #: How weights are kept.
    dtype: Precision
    #: How the expert hosts' weights are kept, if different.
    expert_dtype: Precision
    #: How token rows travel to the expert hosts and back.
    wire_dtype: Literal["float32", "bfloat16"]
    #: Compute threads of the gateway.
    threads: int
    #: Compute threads of each expert host.
    host_threads: int
    #: A folder that keeps the shards for the next start.
    shards: Union[str, os.PathLike[str]]
    #: A LoRA adapter to merge into the weights.
    merge_adapter: Union[str, os.PathLike[str]]
    #: Values of config.json to override.
    overrides: Mapping[str, object]
    #: Settings of the gateway and the expert hosts by their names in docs/operations.md, such as ``{"queue-limit": 8}``.
    settings: Mapping[str, object]
    #: Where the gateway listens; by default at a free port of the loopback address.
    listen: str
    #: The program; by default what SWITCHYARD_BINARY names, or else ``switchyard`` on PATH.
    binary: Union[str, os.PathLike[str]]
    #: Seconds to wait until all experts are served.
    start_timeout: float
    #: Gets each line that the cluster prints.
    log: Callable[[str], None]


def find_binary(binary: Union[str, os.PathLike[str], None] = None) -> str:
    """Finds the ``switchyard`` program.

    :param binary: Its path; None looks at SWITCHYARD_BINARY, then on PATH.
    :raises LocalClusterError: If there is none.
    """
    for what, path in (("binary", binary), (BINARY_VARIABLE, os.environ.get(BINARY_VARIABLE))):
        if path:
            found = shutil.which(os.fspath(path))
            if found is None:
                raise LocalClusterError(f"{what} is {os.fspath(path)}, which is no program", code=_NOT_FOUND)
            return os.path.abspath(found)
    found = shutil.which("switchyard")
    if found is None:
        raise LocalClusterError(
            f"no program switchyard on PATH; install Switchyard, or set {BINARY_VARIABLE} to the program's path",
            code=_NOT_FOUND,
        )
    return found


_NOT_FOUND = grpc.StatusCode.NOT_FOUND


class LocalCluster:
    """A cluster on this machine that lives as long as this object, and no longer than this process.

    >>> with LocalCluster("deploy/models/switch-mini") as cluster:        # doctest: +SKIP
    ...     print(cluster.address)

    Between this process and the cluster stands a small one that ends the cluster when this process ends, however it does. The
    cluster does not see Ctrl-C in this process's terminal.

    :param model: A folder in Hugging Face layout, or a hub id in the local cache.
    :param options: See :class:`LocalOptions`.
    :raises LocalClusterError: If it does not start in time, with the last lines that it printed.
    """

    #: Where the gateway takes calls, host:port.
    address: str

    def __init__(self, model: Model, **options: Unpack[LocalOptions]) -> None:
        unknown = sorted(set(options) - set(LocalOptions.__annotations__))
        if unknown:
            known = ", ".join(LocalOptions.__annotations__)
            raise TypeError(f"a local cluster takes no argument {', '.join(unknown)}; it takes {known}")
        given: Dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        self._output = _Output(given.get("log"))
        process = _start([find_binary(given.get("binary")), *_arguments(model, given)], _environment(given))
        self._process = process
        self._stop = weakref.finalize(self, _stop, process, os.getpid())
        self._reader = threading.Thread(target=self._output.read, args=(process.stdout,), daemon=True)
        self._reader.start()
        timeout = float(given.get("start_timeout", 300))
        try:
            self.address = self._output.address(timeout)
        except BaseException:
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the cluster's processes are there."""
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        """The process that stands between this one and the cluster; SIGTERM ends both."""
        return self._process.pid

    @property
    def lines(self) -> Tuple[str, ...]:
        """The last lines that the cluster printed."""
        return self._output.last(_Output.KEPT)

    def close(self) -> None:
        """Ends the cluster, which finishes the requests in flight, and waits for it. May be called again."""
        self._stop()
        if self._reader is not threading.current_thread():
            self._reader.join(timeout=1)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalCluster at {self.address}{'' if self.is_running else ', ended'}>"


class _Output:
    """What a cluster prints: kept, passed on, and searched for the line that says where it listens."""

    #: How many of the last lines are kept.
    KEPT = 200

    def __init__(self, log: Optional[Callable[[str], None]]) -> None:
        self._log = log
        self._lines: Deque[str] = collections.deque(maxlen=self.KEPT)
        self._changed = threading.Condition()
        self._address: Optional[str] = None
        self._has_ended = False

    def read(self, stream: IO[bytes]) -> None:
        """Reads to the end."""
        with stream:
            for data in stream:
                line = data.decode("utf-8", "replace").rstrip("\n")
                with self._changed:
                    self._lines.append(line)
                    ready = _READY.match(line)
                    if ready is not None and self._address is None:
                        self._address = ready[1]
                        self._changed.notify_all()
                if self._log is not None:
                    self._log(line)
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def last(self, count: int) -> Tuple[str, ...]:
        """The last lines."""
        with self._changed:
            return tuple(self._lines)[-count:]

    def address(self, timeout: float) -> str:
        """Waits for the line that says where the cluster listens."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._address is not None, timeout)
            if self._address is not None:
                return self._address
            what = "ended before it was ready" if self._has_ended else f"was not ready within {timeout:g} s"
            code = grpc.StatusCode.UNAVAILABLE if self._has_ended else grpc.StatusCode.DEADLINE_EXCEEDED
            said = "\n".join(tuple(self._lines)[-20:])
            raise LocalClusterError(f"the cluster {what}{': ' if said else ''}{said}", code=code)


def _arguments(model: Model, given: Mapping[str, Any]) -> List[str]:
    arguments = ["up", "--listen", str(given.get("listen", "127.0.0.1:0"))]
    names = ("pools", "replicas", "dtype", "expert_dtype", "wire_dtype", "threads", "host_threads", "shards", "merge_adapter")
    for name in names:
        if name in given:
            arguments += ["--" + name.replace("_", "-"), os.fspath(given[name]) if _is_path(given[name]) else str(given[name])]
    for key, value in given.get("overrides", {}).items():
        arguments += ["--override", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    return [*arguments, "--", os.fspath(model)]


def _is_path(value: object) -> bool:
    return isinstance(value, os.PathLike)


def _environment(given: Mapping[str, Any]) -> Dict[str, str]:
    # Lines are read here, and notebooks ask for colors.
    left_out = (BINARY_VARIABLE, "CLICOLOR_FORCE", "FORCE_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment["NO_COLOR"] = "1"
    for name, value in given.get("settings", {}).items():
        variable = "SWITCHYARD_" + str(name).upper().replace("-", "_")
        environment[variable] = str(value).lower() if isinstance(value, bool) else str(value)
    return environment


def _start(command: List[str], environment: Dict[str, str]) -> subprocess.Popen[bytes]:
    python = sys.executable or shutil.which("python3")
    if not python:
        raise LocalClusterError("sys.executable is empty, and there is no python3 on PATH", code=_NOT_FOUND)
    guard = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_guard.py")
    return subprocess.Popen(
        [python, "-I", "-S", guard, str(os.getpid()), str(_GRACE), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    """Ends a cluster's guard, and with it the cluster; a fork of its owner does nothing."""
    if os.getpid() != owner:
        return
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        # It has its own session, whose processes are the guard's and the cluster's.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
