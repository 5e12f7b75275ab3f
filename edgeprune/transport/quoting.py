r"""Where an argument list becomes one line of a shell, for ways that carry no lists: ssh and adb.

Every word is quoted, so that nothing in it is read as shell. Quotes and backslashes stand outside of the single
quotes, each behind a backslash: that is read alike by every POSIX sh and by fish, where a backslash has a meaning of
its own between single quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def shell_line(arguments: Sequence[str]) -> str:
    r"""One line that a shell splits into exactly these arguments.

    Bytes that are no UTF-8 pass as surrogate escapes, as in `os.fsdecode`.

    Raises:
        ValueError: an argument holds a NUL, which no program can be given.

    >>> print(shell_line(["echo", "it's", "$(x)"]))
    'echo' 'it'\''s' '$(x)'
    """
    return " ".join(map(_shell_word, arguments))


def _shell_word(argument: str) -> str:
    if "\0" in argument:
        raise ValueError(f"an argument cannot hold a NUL: {argument!r}")
    return "'" + re.sub(r"['\\]", lambda found: f"'\\{found[0]}'", argument) + "'"
