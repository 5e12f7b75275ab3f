"""TVM's RPC, on this machine's loopback alone: whoever reaches such a server may run anything on it.

`serve` starts a server here. A device's own server listens on the device's loopback, started there by
`python -m tvm.exec.rpc_server --host 127.0.0.1 --port 9090` (of `pip install apache-tvm[rpc]`), and is reached through
a tunnel: `ssh -L 9090:127.0.0.1:9090 DEVICE`. Start with `connect`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvm import rpc

from edgeprune.errors import DeviceError, UserError

_HERE = "127.0.0.1"
_PORTS = (9190, 9390)
_SESSION_S = 120
_BIND = "TVM_BIND_THREADS"


def loopback(address: str) -> tuple[str, int]:
    """Host and port of an address that leads nowhere but to this machine.

    Args:
        address: HOST:PORT, as 127.0.0.1:9090.

    Raises:
        UserError: it is none, or leads elsewhere.

    >>> loopback("localhost:9090")
    ('127.0.0.1', 9090)
    """
    host, _, port = address.rpartition(":")
    try:
        number = int(port)
        place = ipaddress.ip_address(_HERE if host == "localhost" else host.strip("[]"))
    except ValueError as error:
        raise UserError(f"{address!r} is no address", hint="give local, or HOST:PORT as 127.0.0.1:9090") from error
    if not place.is_loopback or not 0 < number < 1 << 16:
        raise UserError(
            f"{address} is not on this machine: TVM's RPC has neither encryption nor a password",
            hint="tunnel to the device, ssh -L 9090:127.0.0.1:9090 DEVICE, and give 127.0.0.1:9090",
        )
    return str(place), number


@contextmanager
def serve() -> Iterator[tuple[str, int]]:
    """A server of this machine, in a process of its own, that listens on the loopback; gives its host and port."""
    kept = os.environ.get(_BIND)
    os.environ[_BIND] = "0"  # inherited; else the server's threads leave the cores that this process was pinned to
    try:
        server = rpc.Server(_HERE, *_PORTS, silent=True)
    finally:
        del os.environ[_BIND]
        os.environ.update({_BIND: kept} if kept is not None else {})
    try:
        yield _HERE, server.port
    finally:
        server.terminate()


def connect(host: str, port: int) -> Any:
    """A session with a server (`tvm.rpc.RPCSession`); the server ends it after two minutes.

    Raises:
        DeviceError: no server answers there.
    """
    try:
        return rpc.connect(host, port, session_timeout=_SESSION_S)
    except Exception as error:  # TVM raises errors of any kind
        raise DeviceError(
            f"no TVM RPC server answers at {host}:{port}",
            hint="start one there: python -m tvm.exec.rpc_server --host 127.0.0.1 --port 9090",
            detail=str(error),
        ) from error


def load(session: Any, library: Path, name: str) -> Any:
    """Send a library to a session's machine and load it there; gives the module (`tvm.runtime.Module`)."""
    session.upload(bytearray(library.read_bytes()), name)
    return session.load_module(name)
