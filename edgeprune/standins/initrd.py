"""The first files of a virtual machine: an archive that the kernel unpacks into memory, and a disk made without root.

The archive holds the kernel's modules, a shell, and what belongs to one machine alone, so that all machines can share
the disk's image. Start with `initrd`.
"""

from __future__ import annotations

import gzip
import re
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeprune.errors import DeviceError

_MODULES = "virtio_pci virtio_blk virtio_net virtio-rng sch_netem".split()
_DISK_BYTES = 2 << 30
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_FIRST = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod "/modules/$module.ko"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do /bin/busybox usleep 100000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox sh
/bin/busybox cp -a /own/. /root/
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /sbin/init
"""


def initrd(kernel: Path, busybox: Path, own: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The archive.

    Args:
        kernel: Folder of an unpacked kernel with its modules.
        busybox: A static one, of the machine's architecture.
        own: Files that this machine has over those of its disk: path -> (permissions, content).

    Raises:
        DeviceError: the kernel lacks a module.
    """
    modules = _with_needed(kernel)
    first = _FIRST.format(modules=" ".join(modules)).encode()
    files = {"init": (0o755, first), "bin/busybox": (0o755, busybox.read_bytes())}
    files |= {f"modules/{name}.ko": (0o644, content) for name, content in modules.items()}
    files |= {f"own/{name}": given for name, given in own.items()}
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    folders |= {"proc", "dev", "root"}
    entries = dict.fromkeys(folders, (stat.S_IFDIR | 493, b""))
    entries |= {name: (stat.S_IFREG | mode, content) for name, (mode, content) in files.items()}
    archive = b"".join(_entry(name, *entries[name]) for name in sorted(entries)) + _entry("TRAILER!!!", 0, b"")
    return gzip.compress(archive, compresslevel=1)


def disk(root: Path, image: Path) -> None:
    """Make a disk's image of a folder.

    Raises:
        DeviceError: it cannot be made.
    """
    with tempfile.NamedTemporaryFile(dir=image.parent, prefix=f".{image.name}.", delete=False) as file:
        aside = Path(file.name)
        file.truncate(_DISK_BYTES)
    try:
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(aside)]
        subprocess.run(words, check=True, capture_output=True, text=True)
        aside.replace(image)
    except FileNotFoundError:
        raise DeviceError("mke2fs is not here", hint="apt install e2fsprogs") from None
    except subprocess.CalledProcessError as error:
        raise DeviceError("the disk's image cannot be made", hint="is the disk full?", detail=error.stderr) from error
    finally:
        aside.unlink(missing_ok=True)


def _with_needed(kernel: Path) -> dict[str, bytes]:
    """Modules and those that they need, in the order in which they can be loaded; name -> content."""
    files = {path.stem.replace("-", "_"): path for path in (kernel / "usr" / "lib" / "modules").rglob("*.ko")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in ordered:
            return
        if name not in files:
            raise DeviceError(f"the kernel has no module {name}", hint="remove the cache's folder standins")
        content = files[name].read_bytes()
        found = _DEPENDS.search(content)
        for needed in found[1].decode().split(",") if found else []:
            if needed:
                add(needed)
        ordered[name] = content

    for name in _MODULES:
        add(name)
    return ordered


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """A file of the archive, in the format `newc` of the kernel's documentation, early-userspace/buffer-format.

    >>> _entry("a", 0o100644, b"text")[:6]
    b'070701'
    """
    path = name.encode() + b"\0"
    # inode, mode, user, group, links, time, size, device (2), special device (2), length of the name, checksum
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
