"""qemu-user: an installed one, or that of the Debian package, unpacked into the cache without root.

The dynamic one is wanted: only it takes plugins. Start with `find_emulator`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.emulation import debian
from edgeprune.errors import DeviceError
from edgeprune.resources import cache_folder
from edgeprune.storage import partial_folder

_PROGRAMS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
ARCHITECTURES = tuple(_PROGRAMS)
_PATIENCE_SECONDS = 300
_HINT = (
    "apt install qemu-user; or, without root: python -c 'from edgeprune import emulation; emulation.fetch_emulators()'"
)


@dataclass(frozen=True)
class Emulator:
    """qemu-user for one architecture.

    Attributes:
        architecture: aarch64, armv7l or x86_64.
        program: qemu's path.
        libraries: Folders of its shared libraries, where they are not the system's.
    """

    architecture: str
    program: Path
    libraries: tuple[Path, ...] = ()

    def run(
        self, arguments: Sequence[str], *, plugin: str | None = None, seconds: float = _PATIENCE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of that architecture to its end.

        Args:
            arguments: The program's path and its arguments.
            plugin: A plugin of qemu as its `-plugin` takes it: FILE,key=value.
            seconds: How long it may take.

        Raises:
            DeviceError: qemu cannot be started, or the program does not end in time.
        """
        command = [str(self.program), *(["-plugin", plugin] if plugin else []), *arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=seconds, env=self.environment()
            )
        except OSError as error:
            raise DeviceError(f"cannot start {self.program}: {error.strerror}", hint=_HINT) from error
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{Path(arguments[0]).name} did not end within {seconds:g} s under emulation") from None

    def environment(self) -> dict[str, str]:
        """The variables that qemu is started with: this process's, and where its libraries are."""
        if not self.libraries:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}

    def version(self) -> str:
        """What qemu says of itself, one line."""
        told = self.run(["--version"]).stdout.splitlines()
        return told[0] if told else "unknown"


def find_emulator(architecture: str) -> Emulator:
    """The emulator for an architecture, if qemu-user is installed or was fetched.

    Raises:
        DeviceError: there is none.
    """
    if architecture not in _PROGRAMS:
        raise DeviceError(f"no emulator is known for {architecture}", hint="known: " + ", ".join(_PROGRAMS))
    found = _find(architecture, _PROGRAMS[architecture], "qemu-user")
    if found is None:
        raise DeviceError(f"qemu-user is not here, which emulates {architecture}", hint=_HINT)
    return found


def fetch_emulators() -> None:
    """Unpack Debian's package and the libraries it wants into the cache, if no emulator is here; root is not needed.

    Raises:
        DeviceError: it cannot be fetched here.
    """
    if not all(_find(architecture, name, "qemu-user") for architecture, name in _PROGRAMS.items()):
        _unpack_once("qemu-user")


def static_emulator(architecture: str) -> Path:
    """The path of an emulator that needs no library, for a root of its own; fetched into the cache if it is not here.

    Raises:
        DeviceError: it is not here and cannot be fetched.
    """
    return _found_or_fetched(architecture, f"{_PROGRAMS[architecture]}-static", "qemu-user-static").program


def machine_emulator() -> Emulator:
    """The emulator of whole aarch64 machines; fetched into the cache if it is not here.

    Raises:
        DeviceError: it is not here and cannot be fetched.
    """
    return _found_or_fetched("aarch64", "qemu-system-aarch64", "qemu-system-arm")


def _found_or_fetched(architecture: str, program: str, package: str) -> Emulator:
    found = _find(architecture, program, package)
    if found is None:
        _unpack_once(package)
        found = _find(architecture, program, package)
    if found is None:
        raise DeviceError(f"Debian's {package} has no {program}", hint=debian.HINT)
    return found


def _find(architecture: str, program: str, package: str) -> Emulator | None:
    """A program that is installed or was fetched."""
    installed = shutil.which(program)
    if installed:
        return Emulator(architecture, Path(installed))
    root = cache_folder() / package
    fetched = root / "usr" / "bin" / program
    if not fetched.is_file():
        return None
    folders = sorted({library.parent for library in (root / "usr" / "lib").rglob("*.so*") if library.is_file()})
    return Emulator(architecture, fetched, tuple(folders))


def _unpack_once(package: str) -> None:
    root = cache_folder() / package
    with partial_folder(root.parent) as folder:
        fetched, unpacked = folder / "fetched", folder / "root"
        for made in (fetched, unpacked):
            made.mkdir()
        debian.unpack(debian.fetch([package], fetched), unpacked)
        if not root.is_dir():  # another process may have been faster
            unpacked.replace(root)
