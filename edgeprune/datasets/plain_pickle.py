"""CIFAR's Python archives without running anything that stands in them. Start with `read`.

A pickle may call any function that it names. This reader knows four names, all of which lead to inert records here: a
numpy array comes out as the bytes of its buffer with dtype and shape, and whatever else is named is refused. Nothing
of numpy is called before the record has been looked at.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import DatasetError

_UNREADABLE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, ImportError,
    OverflowError, MemoryError, UnicodeDecodeError,
)  # fmt: skip


@dataclass
class _Type:
    """A dtype by its name, such as "u1"; its further state says nothing that is used."""

    name: str

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """What a pickled array is made of: version, shape, dtype, whether in Fortran's order, buffer."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, tuple) else ()


class _Kind:
    """Stands for the class numpy.ndarray, which is only named."""


def _array(*_: object) -> _Array:
    return _Array()


def _type(name: object, *_: object) -> _Type:
    return _Type(name.decode("ascii") if isinstance(name, bytes) else str(name))


def _bytes(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _type,
    ("_codecs", "encode"): _bytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the inert records; everything else is refused."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file needs")
        return _KNOWN[module, name]


def read(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary of one file of an archive: text, numbers, bytes, lists, and arrays of bytes (uint8).

    Raises:
        DatasetError: it is torn, no dictionary, or names anything that CIFAR's files do not.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
    except _UNREADABLE as error:
        raise DatasetError(
            f"{where}: not a file of CIFAR's Python archive: {error}",
            hint="fetch the archive again from where you trust it, or use the binary one",
        ) from error
    if not isinstance(found, dict):
        raise DatasetError(f"{where}: holds a {type(found).__name__}, not a dictionary")
    return {_text(key): _plain(value, where) for key, value in found.items()}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _plain(value: object, where: str) -> Any:
    if isinstance(value, _Array):
        return _numbers(value, where)
    if isinstance(value, list):
        return [_text(one) if isinstance(one, bytes) else one for one in value]
    return value


def _numbers(array: _Array, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if len(array.state) == 5:
        _, shape, kind, fortran, buffer = array.state
        if isinstance(buffer, str):
            buffer = buffer.encode("latin1")
        plain = isinstance(kind, _Type) and kind.name in ("u1", "|u1") and isinstance(buffer, bytes)
        whole = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
        if plain and whole and int(np.prod(shape, dtype=np.int64)) == len(buffer):
            return np.frombuffer(buffer, np.uint8).reshape(shape, order="F" if fortran else "C")
    raise DatasetError(f"{where}: holds an array of something else than bytes (uint8)")
