"""Debian's packages for any architecture, unpacked into a folder: nothing is installed, root is not needed.

apt works on lists and a cache of its own, checks the archive's signatures as always, and resolves what is wanted.
Start with `fetch`, then `unpack`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from edgeprune.errors import DeviceError

HINT = "needed: Debian with apt-get and dpkg-deb, and its archive within reach"
_PATIENCE_SECONDS = 600
_TAIL = 2000


def fetch(
    wanted: Sequence[str], folder: Path, *, architecture: str | None = None, provided: Collection[str] = ()
) -> list[Path]:
    """Download packages and what they depend on.

    Args:
        wanted: Names of packages.
        folder: An empty folder, for apt's lists and the packages.
        architecture: Debian's word, such as arm64, for a system of its own; None: what this machine lacks.
        provided: Packages that count as installed, such as those that only install other packages.

    Returns:
        The package files, in the order of their names.

    Raises:
        DeviceError: apt is not here, or it failed.
    """
    for tool in ("apt-get", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise DeviceError(f"without {tool} Debian's packages cannot be fetched", hint=HINT)
    for made in ("lists/partial", "archives/partial"):
        (folder / made).mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(_configuration(folder, architecture, provided))
    apt = ["apt-get", "-c", str(configuration)]
    _carry_out([*apt, "update"])
    _carry_out([*apt, "install", "--download-only", "--reinstall", "--yes", *wanted])
    return sorted((folder / "archives").glob("*.deb"))


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpack package files into a folder, in which /bin, /sbin and /lib lead into /usr; their scripts are not run.

    Raises:
        DeviceError: a package cannot be unpacked.
    """
    for merged in ("bin", "sbin", "lib"):
        (root / "usr" / merged).mkdir(parents=True, exist_ok=True)
        if not (root / merged).is_symlink():
            (root / merged).symlink_to(f"usr/{merged}")
    for package in packages:
        # a package may hold files under /lib, a link that `dpkg-deb -x` would replace
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as content:
            _carry_out(["tar", "-x", "--keep-directory-symlink", "-C", str(root)], content)
        if content.returncode:
            raise DeviceError(f"{package.name} cannot be unpacked", hint="is the disk full? " + HINT)


def _configuration(folder: Path, architecture: str | None, provided: Collection[str]) -> str:
    """apt's own settings: lists, cache and state apart from the machine's; hooks of the machine are left out."""
    lines = [
        "#clear APT::Update;",
        "#clear DPkg;",
        f'Dir::State::Lists "{folder}/lists";',
        f'Dir::Cache "{folder}";',
        'APT::Sandbox::User "";',
        'APT::Install-Recommends "false";',
        'Debug::NoLocking "true";',
    ]
    if architecture:
        state = folder / "status"
        entry = "Package: {}\nStatus: install ok installed\nVersion: 9999\nArchitecture: {}\nMulti-Arch: foreign\n\n"
        state.write_text("".join(entry.format(name, architecture) for name in provided))
        lines += [
            f'APT::Architecture "{architecture}";',
            f'APT::Architectures {{ "{architecture}"; }};',
            f'Dir::State::status "{state}";',
        ]
    return "\n".join(lines) + "\n"


def _carry_out(command: Sequence[str], source: subprocess.Popen[bytes] | None = None) -> None:
    try:
        subprocess.run(
            command,
            stdin=source.stdout if source else subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace")
        raise DeviceError(f"{command[0]} failed", hint=HINT, detail=told[-_TAIL:]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{command[0]} failed: {error}", hint=HINT) from error
