"""The line that an error is told with: the user's own before an installed package's, never torch's or edgeprune's."""

from __future__ import annotations

import json
from collections.abc import Callable

import hypothesis.strategies
import numpy as np
import pytest
import torch

from edgeprune.measuring import median
from edgeprune.user_code import users_line


def failing(call: Callable[[], object], *, without_this_file: bool = False) -> BaseException:
    try:
        call()
    except Exception as error:
        own = error.__traceback__
        while without_this_file and own is not None and own.tb_frame.f_code.co_filename == __file__:
            own = own.tb_next
        return error.with_traceback(own)
    raise AssertionError("the call was to fail")


CALLS = {
    "installed": lambda: np.linalg.inv(np.zeros((2, 2))),
    "standard library": lambda: json.loads("{"),
    "torch": lambda: torch.nn.Linear(2, 2)(None),
    "edgeprune": lambda: median([]),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_own_line_is_told_whoever_raises(name: str) -> None:
    call = CALLS[name]
    assert users_line(failing(call)) == f"{__file__}:{call.__code__.co_firstlineno}"


@pytest.mark.parametrize("name", ["standard library", "torch", "edgeprune"])
def test_no_line_where_none_is_the_users(name: str) -> None:
    assert users_line(failing(CALLS[name], without_this_file=True)) is None


def test_an_installed_package_counts_where_no_own_line_does() -> None:
    line = users_line(failing(lambda: hypothesis.strategies.integers(3, 2).validate(), without_this_file=True))
    assert line is not None
    assert "hypothesis" in line


def test_a_syntax_error_is_told_its_own_place() -> None:
    error = failing(lambda: compile("x = 1\ny = (", "nets.py", "exec"))
    assert users_line(error) == "nets.py:2"
