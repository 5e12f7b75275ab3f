"""A Raspberry Pi's system for the stand-ins: Debian's arm64 packages, unpacked once and kept in the cache.

Packages are only unpacked: none of their scripts runs, since that takes minutes under emulation. What scripts would
have made and programs need (users, groups, links of alternatives) is written here. Start with `rootfs`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from edgeprune.emulation import debian
from edgeprune.resources import cache_folder
from edgeprune.storage import partial_folder

USER, USER_ID = "pi", 1000
HOST_NAME = "raspberrypi"
PACKAGES = """
base-files base-passwd bash busybox-static coreutils findutils grep gzip hostname iproute2 libc-bin libgomp1 libstdc++6
login mawk mount openssh-server openssh-sftp-server passwd procps python3 sed tar tzdata util-linux
""".split()
NOT_NEEDED = """
adduser debconf debianutils dpkg init-system-helpers initramfs-tools kmod libaudit-common libdebconfclient0
libpam-runtime libsemanage-common lsb-base perl perl-base runit-helper sensible-utils sysvinit-utils ucf usrmerge
""".split()
"""What others depend on for installing, or configuring, and not for running."""
_VERSIONS = "packages.txt"
_LINKS = {"usr/bin/sh": "dash", "usr/bin/awk": "mawk"}
_VCGENCMD = """#!/bin/sh
# the firmware's throttle word, as the program of that name tells it on a board
[ "$1" = get_throttled ] || exit 1
echo "throttled=0x$(cat /sys/devices/platform/soc/soc:firmware/get_throttled)"
"""
_FORM = 1  # of what is written beside the packages


def rootfs(say: Callable[[str], None]) -> Path:
    """The folder of the unpacked system; made if it is not there, in less than a minute.

    Everybody may read it and nobody should write: all stand-ins share it. `packages.txt` beside it tells the versions.

    Raises:
        DeviceError: Debian's packages cannot be had here.
    """
    return made("rootfs", [*PACKAGES, "dash"], say, _finish) / "root"


def kernel(say: Callable[[str], None]) -> Path:
    """The folder with an unpacked arm64 kernel for virtual machines, with its modules.

    Raises:
        DeviceError: Debian's packages cannot be had here.
    """
    return made("kernel", ["linux-image-cloud-arm64"], say, lambda root: None) / "root"


def made(
    name: str, packages: list[str], say: Callable[[str], None], finish: Callable[[Path], None], form: object = _FORM
) -> Path:
    """A folder of the cache with packages unpacked in `root`, made if it is not there.

    Args:
        name: What it is called.
        packages: Debian's names; what they depend on comes with them.
        say: Told what takes long.
        finish: Does with the unpacked folder what is left to do.
        form: What `finish` makes of it, as anything that JSON can say: another form is another folder.

    Raises:
        DeviceError: Debian's packages cannot be had here.
    """
    recipe = json.dumps([form, packages, NOT_NEEDED]).encode()
    place = cache_folder() / "standins" / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return place
        say(f"fetching Debian's arm64 packages for the {name} (once)")
        with partial_folder(place.parent) as folder:
            whole, fetched = folder / "whole", folder / "fetched"
            root = whole / "root"
            for made in (fetched, root):
                made.mkdir(parents=True)
            files = debian.fetch(packages, fetched, architecture="arm64", provided=NOT_NEEDED)
            debian.unpack(files, root)
            finish(root)
            (whole / _VERSIONS).write_text("".join(f"{file.stem}\n" for file in files))
            whole.chmod(0o755)
            whole.replace(place)
    return place


def _finish(root: Path) -> None:
    """What the packages' scripts would have made."""
    for name, target in _LINKS.items():
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    for made in ("proc", "sys", "dev", "run", "tmp", "root", f"home/{USER}", "var/empty"):
        (root / made).mkdir(parents=True, exist_ok=True)
    base, etc = root / "usr" / "share" / "base-passwd", root / "etc"
    users = [
        "sshd:*:105:65534::/run/sshd:/usr/sbin/nologin",
        f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash",
    ]
    (etc / "passwd").write_text((base / "passwd.master").read_text() + "".join(f"{line}\n" for line in users))
    (etc / "group").write_text((base / "group.master").read_text() + f"{USER}:x:{USER_ID}:\n")
    (etc / "shadow").write_text(f"root:*:19000:0:99999:7:::\n{USER}:*:19000:0:99999:7:::\n")
    (etc / "hostname").write_text(f"{HOST_NAME}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost {HOST_NAME}\n")
    firmware = root / "usr" / "bin" / "vcgencmd"
    firmware.write_text(_VCGENCMD)
    firmware.chmod(0o755)
