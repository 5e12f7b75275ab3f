"""The agent under one shell with a folder of its own, as a device's link would call it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.transport.channel import Channel
from edgeprune.transport.contract import agent_files
from tests.processes import running

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"], "mksh": ["mksh"]}


def words_of(shell: str) -> list[str]:
    """How this shell is called; without it the test is skipped, but in CI it fails."""
    words = SHELLS[shell]
    if shutil.which(words[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{words[0]} is not installed, and CI must have it")
        pytest.skip(f"{words[0]} is not installed: apt-get install {words[0]}")
    return words


@dataclass
class AgentOf:
    """The agent of one device.

    Args:
        shell: Its words.
        folder: The device's private folder.
        environment: What the device has besides.
    """

    shell: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *words: str) -> list[str]:
        settings = self.environment | {
            "EDGEPRUNE_AGENT_FOLDER": str(self.folder),
            "EDGEPRUNE_SHELL": " ".join(self.shell),
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items()), *self.shell, *self._main(), *words]

    @staticmethod
    def _main() -> list[str]:
        return [str(agent_files()[0])]

    def ask(self, *words: str) -> dict[str, Any]:
        """The one line that the agent answers."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A client of its own session, as ssh's server or adb's daemon would start it."""
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def channel(
        self, program: Sequence[str], launch: str = "launch", patience: float = 20.0, cores: str = "0"
    ) -> Channel:
        """The laptop's end of a launch, which comes back when its client is lost."""
        return Channel(
            self.command("run", launch, cores, *program),
            "device",
            attach=lambda lines, requests: self.command("attach", launch, str(lines), str(requests)),
            patience=patience,
        )

    def processes(self) -> list[psutil.Process]:
        """All that runs for this folder, however it was started."""
        place = str(self.folder)
        return running(lambda process: place in " ".join([*process.environ().values(), *process.cmdline()]))


def events(client: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """All that a client says to its end."""
    assert client.stdout is not None
    return [json.loads(line) for line in client.stdout.read().splitlines()]


def hang_up(client: subprocess.Popen[bytes]) -> None:
    """Close a client's streams and wait for its end."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.close()
    client.wait(timeout=20)
    client.stdout.close()
