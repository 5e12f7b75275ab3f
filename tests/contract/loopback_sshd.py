"""A real OpenSSH server on loopback, with keys, configuration and home of its own: the quick stand-in for a board."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from edgeprune.transport.ssh import SshLink
from tests.processes import kill_all

SSHD = Path("/usr/sbin/sshd")
_START_SECONDS = 20.0


class LoopbackSshd:
    """An sshd that runs as the current user and lets its one key in; sessions see `cache` as their cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "device-cache"
        self.port = free_port()
        self.user = getpass.getuser()
        self.identity = new_key(folder / "identity")
        self._host_key = new_key(folder / "host_key")
        self.authorized = folder / "authorized_keys"
        shutil.copy(self.identity.with_suffix(".pub"), self.authorized)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(self.known_line(self._host_key))
        self._process: subprocess.Popen[bytes] | None = None
        self.settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": str(self._host_key),
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.authorized),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            # the shell's start files in the user's own home would be read, and killed half-way with the server
            "SetEnv": f"XDG_CACHE_HOME={self.cache} HOME={self.folder}",
        }

    def known_line(self, key: Path, host: str = "127.0.0.1") -> str:
        """The line of known_hosts that says that this server has that key."""
        kind, public = key.with_suffix(".pub").read_text().split()[:2]
        return f"[{host}]:{self.port} {kind} {public}\n"

    def link(self, port: int | None = None, options: tuple[str, ...] = ()) -> SshLink:
        """A link to it, or to a port that leads there."""
        return SshLink("board", "127.0.0.1", self.user, port or self.port, self.identity, self.known_hosts, options)

    def start(self) -> None:
        """Start listening; returns when it does."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{word} {value}\n" for word, value in self.settings.items()))
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self.port):
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop as a board does whose power is cut: the server and all that it serves, at once."""
        served, process = self.served(), self._process
        if process is None:
            return
        process.kill()
        process.wait()
        kill_all(served)
        psutil.wait_procs(served, timeout=10)
        self._process = None

    def served(self) -> list[psutil.Process]:
        """Processes that now run on behalf of somebody who logged in, the server's own ones included."""
        return [] if self._process is None else psutil.Process(self._process.pid).children(recursive=True)

    def connections(self) -> list[psutil.Process]:
        """The server's processes that carry one connection each."""
        return [] if self._process is None else psutil.Process(self._process.pid).children()


def answers(port: int) -> bool:
    """Whether something listens at that port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port of loopback that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_key(path: Path) -> Path:
    """A new key pair; returns the private half's path."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def require_sshd() -> None:
    """Skip where there is no ssh server; in CI that is a failure."""
    missing = [words for words in (str(SSHD), "ssh", "ssh-keygen") if shutil.which(words) is None]
    if missing:
        message = f"{', '.join(missing)} not installed: apt-get install openssh-server openssh-client"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
