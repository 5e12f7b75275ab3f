"""The way over adb: Android's own `adb` program, to a phone or tablet on a cable or on the network.

Its server, keys and settings are the user's, so that what `adb shell` reaches, edgeprune reaches. What adb reports of
success is not always so ("1 file pushed" on failure, exit status 0 where a phone lets nobody in): here counts the
state of the device, asked before everything, and the hash that `remote_files` takes. Start with `AdbLink`;
`adb_words` knows what adb's words mean.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.transport.adb_words import Attached, attached, refusal, state_error
from edgeprune.transport.in_band import InBand
from edgeprune.transport.link import QUERY_SECONDS, TRANSFER_SECONDS, Completed
from edgeprune.transport.quoting import shell_line

FOLDER = "/data/local/tmp/edgeprune"
"""The one place where every phone lets programs of `adb shell` be started."""
_NEEDED_FEATURE = "shell_v2"
_SERVER_PORT = 5037
_LAST_PORT = 65535
_SETTLE_SECONDS = 3.0
_POLL_SECONDS = 0.1
_SERVER_SECONDS = 0.5
_SLOWEST_BYTES_PER_SECOND = 1_000_000
_NETWORK_SERIAL = re.compile(r".+:\d+")
_USABLE = "device"
_SETTLING = {"offline", "authorizing", "connecting"}


class AdbLink:
    """A device that runs Android, with USB debugging or wireless debugging switched on.

    Args:
        name: The device as a matrix writes it, for messages.
        serial: As `adb devices` writes it; None for the only one that is attached.
        server_port: Port of the adb server on this machine; None for adb's own.
        adb: The program; where it is "adb" and not in PATH, that of the Python package adbutils is used.
        environment: What the server at that port was started with, beside this process's: a client that misses the
            server starts it anew.
    """

    folder = FOLDER

    def __init__(
        self,
        name: str,
        serial: str | None = None,
        server_port: int | None = None,
        adb: str = "adb",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self._serial = serial
        self._port = server_port
        self._program = adb
        self._environment = [f"{name}={value}" for name, value in environment.items()]
        self._checked: str | None = None
        self._lock = threading.Lock()
        self._clients: set[subprocess.Popen[bytes]] = set()

    def check(self) -> None:
        self._device()

    def command(self, arguments: Sequence[str]) -> list[str]:
        # no terminal, and no character of stdin with a meaning of its own
        return [*self._adb("-s", self._device(), "shell", "-T", "-e", "none"), shell_line(arguments)]

    def call(self, arguments: Sequence[str], *, stdin: bytes = b"", timeout: float = QUERY_SECONDS) -> Completed:
        program = InBand(arguments)
        done = self._run(self.command(program.words), timeout, stdin)
        completed = program.completed(done.returncode, done.stdout, done.stderr)
        if completed is None:
            raise self._broken(done)
        return completed

    def send(self, local: Path, remote: str) -> None:
        try:
            size = local.stat().st_size
        except OSError as error:
            raise TransportError(f"{self.name}: cannot read {local}: {error.strerror}") from error
        self._transfer(["push", str(local.absolute()), remote], f"cannot write {remote}", size)

    def fetch(self, remote: str, local: Path) -> None:
        said = self.call(["stat", "-c", "%s", remote])
        if said.status:
            detail = said.stderr.decode(errors="replace").strip()
            raise TransportError(f"{self.name}: cannot read {remote}", detail=detail or None)
        self._transfer(["pull", remote, str(local.absolute())], f"cannot read {remote}", said.size(self.name))

    def close(self) -> None:
        """End the clients that others still wait for; adb's server is the user's, and stays."""
        for client in list(self._clients):
            client.kill()

    def _transfer(self, words: Sequence[str], failure: str, size: int) -> None:
        patience = TRANSFER_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
        done = self._run(self._adb("-s", self._device(), *words), patience)
        if done.returncode == 0:
            return
        refused = refusal(done.stdout + done.stderr)
        if refused is None:
            raise self._broken(done)
        raise TransportError(f"{self.name}: {failure}: {refused}")

    # --- the device's state -------------------------------------------------------------------------------------------

    def _device(self) -> str:
        """The serial of the device, which is there and lets us in.

        Raises:
            TransportError: it is not or does not; the message says why, the hint what to do.
        """
        # one thread at a time calls back, or one would cut the connection that the other has just got
        with self._lock:
            devices, device = self.look()
            if device is None or device.state != _USABLE:
                self._call_back()
                devices, device = self._settled()
        if device is None or device.state != _USABLE:
            raise state_error(self.name, self._serial, devices, device, was_there=self._checked is not None)
        if self._checked != device.serial:
            self._check_features(device.serial)
            self._checked = device.serial
        return device.serial

    def _settled(self) -> tuple[list[Attached], Attached | None]:
        """What `look` finds after a moment: an adb server that was just started has not met its devices yet."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        devices, device = self.look()
        while (device is None or device.state in _SETTLING) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            devices, device = self.look()
        return devices, device

    def look(self) -> tuple[list[Attached], Attached | None]:
        """All that are attached, and ours: the one of our serial, or the only one, or the one it was before."""
        done = self._run(self._adb("devices", "-l"), QUERY_SECONDS)
        if done.returncode:
            time.sleep(_SERVER_SECONDS)  # one that is just ending still holds its port, and adb starts another after it
            done = self._run(self._adb("devices", "-l"), QUERY_SECONDS)
        if done.returncode:
            detail = done.stderr.decode(errors="replace").strip()
            hint = "start it anew: adb kill-server && adb start-server"
            raise LinkLostError(f"{self.name}: adb's server does not start", hint=hint, detail=detail or None)
        devices = attached(done.stdout)
        wanted = self._serial or self._checked
        if wanted is None:
            return devices, devices[0] if len(devices) == 1 else None
        return devices, next((device for device in devices if device.serial == wanted), None)

    def _call_back(self) -> None:
        """Ask adb to connect anew to a device on the network, which it does not look for by itself."""
        serial = self._serial or self._checked
        if serial is not None and _NETWORK_SERIAL.fullmatch(serial):
            self._run(self._adb("disconnect", serial), QUERY_SECONDS)
            self._run(self._adb("connect", serial), QUERY_SECONDS)

    def _check_features(self, serial: str) -> None:
        done = self._run(self._adb("-s", serial, "features"), QUERY_SECONDS)
        if done.returncode:
            raise self._broken(done)
        if _NEEDED_FEATURE not in done.stdout.decode(errors="replace").split():
            raise TransportError(
                f"{self.name}: its Android is too old: adb has no {_NEEDED_FEATURE} there",
                hint="Android 7 or newer is needed, and adb 1.0.36 or newer here: adb version",
            )

    # --- the program --------------------------------------------------------------------------------------------------

    def _broken(self, done: subprocess.CompletedProcess[bytes]) -> TransportError:
        """Why the connection ended: what the device's state says, or else only that it did."""
        try:
            self._device()
        except TransportError as error:
            return error
        said = done.stderr.decode(errors="replace").strip()
        return LinkLostError(f"{self.name}: adb's connection broke", hint="is the cable loose?", detail=said or None)

    def _adb(self, *words: str) -> list[str]:
        own = ["env", *self._environment] if self._environment else []
        port = [] if self._port is None else ["-P", str(self._port)]
        return [*own, find_adb(self._program), *port, *words]

    def _run(self, command: Sequence[str], seconds: float, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            ) as client:
                self._clients.add(client)
                try:
                    stdout, stderr = client.communicate(stdin, timeout=seconds)
                finally:
                    client.kill()
                    self._clients.discard(client)
                return subprocess.CompletedProcess(command, client.returncode, stdout, stderr)
        except subprocess.TimeoutExpired:
            hint = "is the phone asleep or the cable loose? adb devices -l; then adb reconnect"
            raise LinkLostError(f"{self.name}: no answer over adb for {seconds:.0f} s", hint=hint) from None
        except OSError as error:
            raise TransportError(f"{self.name}: cannot start {command[0]}: {error.strerror}") from error


def attached_phones() -> list[Attached]:
    """The phones and tablets that the user's adb knows, whatever their state; none without adb.

    A server of adb's that had to be started for that is ended again.
    """
    try:
        program = find_adb()
    except TransportError:
        return []
    link = AdbLink("phones")
    told = os.environ.get("ANDROID_ADB_SERVER_PORT") or str(_SERVER_PORT)
    if not told.isdecimal() or int(told) > _LAST_PORT:
        return []  # adb refuses it too
    with socket.socket() as knocking:
        knocking.settimeout(_SETTLE_SECONDS)
        was_running = knocking.connect_ex(("127.0.0.1", int(told))) == 0
    try:
        devices, _ = link.look()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not was_running and time.monotonic() < deadline and not any(one.state == "device" for one in devices):
            time.sleep(_POLL_SECONDS)  # it has not met its devices yet
            devices, _ = link.look()
    except TransportError:
        return []
    finally:
        if not was_running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([program, "kill-server"], capture_output=True, timeout=QUERY_SECONDS, check=False)
    return devices


def find_adb(program: str = "adb") -> str:
    """The path of the adb program; that of the Python package adbutils where `adb` is not in PATH.

    Raises:
        TransportError: there is none.
    """
    found = shutil.which(program)
    if found is not None:
        return found
    package = importlib.util.find_spec("adbutils") if program == "adb" else None
    for folder in (package.submodule_search_locations or []) if package else []:
        bundled = Path(folder) / "binaries" / "adb"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise TransportError(
        f"there is no program {program} here",
        hint="install it: sudo apt-get install adb; or, without root: pip install 'edgeprune[adb]'",
    )
