"""This machine as a device: the same agent and the same contract as a board behind ssh or adb, without a link."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import TransportError
from edgeprune.resources import cache_folder
from edgeprune.storage import storage_error
from edgeprune.transport.channel import Channel
from edgeprune.transport.contents import content_name, sha256
from edgeprune.transport.contract import agent_files, agent_words, launch_commands, parse_facts

_FACTS_SECONDS = 30.0
_POLL_SECONDS = 0.5


class LocalTransport:
    """This machine. Pushed files lie in a private folder of the cache and are removed by `close`."""

    name = "local"
    is_this_machine = True

    def __init__(self) -> None:
        self._folder = cache_folder() / "device-local"
        self._agent = agent_words(str(agent_files()[0]), str(self._folder))
        self._lock: int | None = None
        self._channel: Channel | None = None

    def facts(self) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [*self._agent, "facts"],
                capture_output=True,
                timeout=_FACTS_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise TransportError(f"{self.name}: the agent does not answer: {error}") from error
        return parse_facts(done.stdout, self.name)

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        if self._lock is not None:
            return True
        lock = self._open_lock()
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(lock)
                    return False
                time.sleep(_POLL_SECONDS)
            else:
                if self._is_in_place(lock):
                    self._lock = lock
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"process {os.getpid()} on this machine\n".encode(), 0)
                    self._remove_pushed()
                    return True
                os.close(lock)
                lock = self._open_lock()

    def holder(self) -> str:
        try:
            return (self._folder / "lock").read_text().strip()
        except OSError:
            return ""

    def taken_over_from(self) -> str:
        return ""  # the kernel takes the lock from nobody who lives

    def check_lease(self) -> None:
        """The kernel keeps the lock for as long as this process lives."""

    def _open_lock(self) -> int:
        """Open the lock file in the private folder; what runs from there must be ours alone."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._folder.stat().st_uid != os.getuid():
                raise TransportError(
                    f"{self._folder} belongs to another user", hint="set EDGEPRUNE_CACHE to a folder of your own"
                )
            self._folder.chmod(0o700)
            return os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, self._folder) from error

    def _is_in_place(self, lock: int) -> bool:
        """Whether what was waited for is what others will wait for: `clean` removes the file."""
        try:
            return os.path.samestat(os.fstat(lock), (self._folder / "lock").stat())
        except FileNotFoundError:
            return False

    def raise_clock(self) -> list[int]:
        return []

    def push(self, sources: Sequence[Path]) -> list[str]:
        digests = [sha256(source) for source in sources]
        folder = self._folder / content_name(digests)
        return [str(self._copy(*pair, folder)) for pair in zip(sources, digests, strict=True)]

    def _copy(self, source: Path, digest: str, folder: Path) -> Path:
        remote = folder / source.name
        if remote.exists() and sha256(remote) == digest:
            return remote
        partial = folder / (source.name + ".part")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            if sha256(partial) != digest:
                raise TransportError(f"{self.name}: the copy of {source.name} does not equal it")
            if os.access(source, os.X_OK):
                partial.chmod(0o700)
            partial.replace(remote)
        except OSError as error:
            raise TransportError(f"{self.name}: cannot copy {source.name}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
        return remote

    def discard(self, remote: str) -> None:
        shutil.rmtree(Path(remote).parent, ignore_errors=True)  # to copy it once more takes no time

    def remote_path(self, name: str) -> str:
        return str(self._folder / name)

    def pull(self, remote: str, destination: Path) -> None:
        try:
            shutil.copyfile(remote, destination)
        except OSError as error:
            raise TransportError(f"{self.name}: cannot fetch {Path(remote).name}: {error.strerror}") from error

    def python(self, runtime: str | None = None) -> list[str]:
        return [sys.executable]

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel:
        command, attach = launch_commands(self._agent, arguments, cores)
        self._channel = Channel(command, self.name, self._folder, attach)
        return self._channel

    def abort(self) -> None:
        if self._channel is not None:
            self._channel.abort()

    def clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:  # what it locked is gone: to hold it on would keep nobody out
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        if self._lock is not None:
            self._remove_pushed()
            os.close(self._lock)
            self._lock = None

    def _remove_pushed(self) -> None:
        for entry in self._folder.iterdir() if self._folder.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                entry.unlink(missing_ok=True)
