"""Quoting: whatever an argument holds, a real shell hands it on unchanged, and runs nothing in it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.transport.quoting import shell_line

SHELLS = [["dash"], ["bash"], ["busybox", "sh"], ["mksh"], ["fish", "--no-config"]]
NASTY = st.lists(st.sampled_from(["'", '"', "\\", "$(echo x)", "`id`", "\n", "\r", "\t", " ", "!", "~", "*", "-", "a"]))
ARGUMENT = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary().map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
    NASTY.map("".join),
)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_shell_hands_on_what_was_quoted(shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{shell[0]} is not installed, and CI must have it")
        pytest.skip(f"{shell[0]} is not installed: apt-get install {shell[0]}")

    @given(st.lists(ARGUMENT, max_size=5))
    @settings(max_examples=60, deadline=None)
    def unchanged(arguments: list[str]) -> None:
        line = shell_line(["/usr/bin/printf", r"%s\0", "first", *arguments])
        done = subprocess.run([*shell, "-c", line], capture_output=True, check=True)
        assert done.stdout.split(b"\0")[:-1] == [b"first", *map(os.fsencode, arguments)]
        assert done.stderr == b""

    unchanged()


def test_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell_line(["a\0b"])
