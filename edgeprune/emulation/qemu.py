"""qemu-user: an installed one, or that of the Debian package, unpacked into the cache without root.

The dynamic one is wanted: only it takes plugins. Start with `find_emulator`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.emulation import debian
from edgeprune.errors import DeviceError
from edgeprune.resources import cache_folder

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
        environment = dict(os.environ)
        if self.libraries:
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, self.libraries))
        try:
            return subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=seconds, env=environment
            )
        except OSError as error:
            raise DeviceError(f"cannot start {self.program}: {error.strerror}", hint=_HINT) from error
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{Path(arguments[0]).name} did not end within {seconds:g} s under emulation") from None

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
    name = _PROGRAMS[architecture]
    installed = shutil.which(name)
    if installed:
        return Emulator(architecture, Path(installed))
    root = _fetched()
    program = root / "usr" / "bin" / name
    if not program.is_file():
        raise DeviceError(f"qemu-user is not here, which emulates {architecture}", hint=_HINT)
    folders = sorted({library.parent for library in (root / "usr" / "lib").rglob("*.so*") if library.is_file()})
    return Emulator(architecture, program, tuple(folders))


def fetch_emulators() -> None:
    """Unpack Debian's package and the libraries it wants into the cache, if no emulator is here; root is not needed.

    Raises:
        DeviceError: it cannot be fetched here.
    """
    root = _fetched()
    if root.is_dir() or all(map(shutil.which, _PROGRAMS.values())):
        return
    _unpack_once("qemu-user", root)


def static_emulator(architecture: str) -> Path:
    """The path of an emulator that needs no library, for a root of its own; fetched into the cache if it is not here.

    Raises:
        DeviceError: it is not here and cannot be fetched.
    """
    name = f"{_PROGRAMS[architecture]}-static"
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    root = cache_folder() / "qemu-user-static"
    if not root.is_dir():
        _unpack_once("qemu-user-static", root)
    return root / "usr" / "bin" / name


def _fetched() -> Path:
    return cache_folder() / "qemu-user"


def _unpack_once(package: str, root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".qemu-", dir=root.parent) as folder:
        fetched, unpacked = Path(folder) / "fetched", Path(folder) / "root"
        for made in (fetched, unpacked):
            made.mkdir()
        debian.unpack(debian.fetch([package], fetched), unpacked)
        if not root.is_dir():  # another process may have been faster
            unpacked.replace(root)
