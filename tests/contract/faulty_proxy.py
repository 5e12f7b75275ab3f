"""A TCP proxy on loopback whose link can be cut, mended and reset: what Wi-Fi does to a connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: close sends RST


class FaultyProxy:
    """Forwards connections to a port of loopback.

    While cut, nothing passes and nobody is told, as when packets are lost: both ends keep their connection, and what
    they sent meanwhile arrives when the link is mended. New connections are accepted and stay silent.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._ended = False
        self._passed = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._orphans: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def passed(self) -> int:
        """Bytes that have passed so far, both ways."""
        return self._passed

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._open.clear()

    def mend(self) -> None:
        """Let everything pass again."""
        self._open.set()

    def reset(self) -> None:
        """End all connections, and both ends are told; new ones may come."""
        self.lose()
        orphans, self._orphans = self._orphans, []
        for far in orphans:
            _reset(far)
        self._open.set()

    def retarget(self, target: int) -> None:
        """Send new connections to another port of loopback."""
        self._target = target

    def lose(self) -> None:
        """End all connections for whoever made them; the other end is told nothing, as if an address had changed."""
        pairs, self._pairs = self._pairs, []
        for near, far in pairs:
            self._orphans.append(far)
            _reset(near)

    def close(self) -> None:
        """End everything."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(timeout=5)

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            self._start(self._forward, near, far)
            self._start(self._forward, far, near)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._open.wait()
                sink.sendall(data)
                self._passed += len(data)
        with contextlib.suppress(OSError):
            if sink not in self._orphans:
                sink.shutdown(socket.SHUT_WR)


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    one.close()
