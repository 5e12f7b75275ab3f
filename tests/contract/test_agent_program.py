"""Programs that a device cannot carry out are told as such, under every shell, pinned or not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from edgeprune.errors import RemoteError
from tests.contract.agent_of import AgentOf, hang_up

MACHINE = slice(18, 20)  # of an ELF header: the processor that the program is made for
AARCH64, X86_64 = b"\xb7\0", b"\x3e\0"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of this machine, to be altered."""
    found = shutil.which("true")
    assert found
    return Path(shutil.copy(found, tmp_path / "a program"))


def make_foreign(program: Path) -> None:
    code = bytearray(program.read_bytes())
    code[MACHINE] = X86_64 if code[MACHINE] == AARCH64 else AARCH64
    program.write_bytes(code)


def failure(agent: AgentOf, program: str, cores: str) -> RemoteError:
    channel = agent.channel([program], cores=cores)
    with pytest.raises(RemoteError) as caught:
        channel.receive(30)
    channel.stop()
    return caught.value


@pytest.mark.parametrize("cores", ["0", "-"])
def test_a_program_of_another_architecture_is_refused(agent: AgentOf, program: Path, cores: str) -> None:
    make_foreign(program)
    said = str(failure(agent, str(program), cores))
    assert "cannot be executed here: wrong architecture: it is made for " in said
    assert said.splitlines()[0].endswith(os.uname().machine)


@pytest.mark.parametrize("cores", ["0", "-"])
def test_a_program_whose_loader_is_missing_is_told_as_such(agent: AgentOf, program: Path, cores: str) -> None:
    program.write_bytes(program.read_bytes().replace(b"/ld-linux", b"/ld-other"))
    said = str(failure(agent, str(program), cores))
    assert "its loader /lib" in said
    assert "not found" not in said.splitlines()[0]


@pytest.mark.parametrize("cores", ["0", "-"])
def test_a_program_that_is_not_there_is_told_as_such(agent: AgentOf, cores: str) -> None:
    assert "not found on the device" in str(failure(agent, "/no/such/program", cores))


def test_a_kernel_of_32_bits_runs_no_program_of_64(agent: AgentOf, program: Path, tmp_path: Path) -> None:
    (tmp_path / "uname").write_text(f"#!/bin/sh\necho {'armv7l' if os.uname().machine == 'aarch64' else 'i686'}\n")
    (tmp_path / "uname").chmod(0o755)
    agent.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    assert "wrong architecture" in str(failure(agent, str(program), "-"))


def test_a_program_with_an_emulator_in_the_kernel_is_started(agent: AgentOf, program: Path, tmp_path: Path) -> None:
    """A folder stands for /proc: here the start fails, but it is tried."""
    make_foreign(program)
    entry = tmp_path / "proc/sys/fs/binfmt_misc/an emulator"
    entry.parent.mkdir(parents=True)
    code = program.read_bytes()
    entry.write_text(f"enabled\ninterpreter /e\nflags: F\noffset 0\nmagic {code[:20].hex()}\nmask {'ff' * 20}\n")
    agent.environment["EDGEPRUNE_PROC"] = str(tmp_path / "proc")
    client = agent.start("run", "launch", "-", str(program))
    assert client.stdout is not None
    assert json.loads(client.stdout.readline())["event"] == "started"
    hang_up(client)
