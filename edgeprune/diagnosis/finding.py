"""What the doctor says: one record for each thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "warning", "blocked"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: Whether it is good, spoils numbers, or lets nothing be measured.
        check: What was looked at.
        figure: What was found, with its unit.
        limit: What it should be, where there is such a limit.
        advice: The cause where it is not good, and the command that mends it.
    """

    state: State
    check: str
    figure: str
    limit: str = ""
    advice: str = ""


def judged(
    good: bool, check: str, figure: str, limit: str = "", advice: str = "", *, bad: State = "warning"
) -> Finding:
    """A finding that is good, without advice, or else `bad`."""
    return Finding("good" if good else bad, check, figure, limit, "" if good else advice)
