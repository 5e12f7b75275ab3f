"""An Android-like root for the stand-in phone: the shell and most tools that a real Android has, for arm64.

Android's shell is mksh and its tools are toybox; Debian has both. What its toybox leaves out comes from busybox. The
loader of Debian's programs lies where Android's lies, so that a program which wants Linux's loader fails as on a phone.
`android/` holds what is written by hand. Start with `android_root`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from edgeprune.standins import rootfs

PACKAGES = ["mksh", "toybox", "busybox-static"]
TOYBOX = """
[ acpi base64 basename blkid blockdev cal cat chgrp chmod chown chroot chrt cksum clear cmp comm cp cpio cut date df
dirname dmesg dos2unix du echo egrep env expand fallocate false fgrep file find flock fmt free fsync getconf grep
groups head hostname hwclock iconv id ifconfig inotifyd install ionice iorenice kill killall ln logname losetup ls
lsattr lsmod lsof lspci lsusb makedevs microcom mkdir mkfifo mknod mktemp modinfo mount mountpoint mv nc netcat
netstat nice nl nohup nproc nsenter od partprobe paste patch pgrep pidof ping ping6 pivot_root pkill pmap printenv
printf prlimit ps pwd pwdx readelf readlink realpath renice rev rfkill rm rmdir sed seq setfattr setsid sleep sort
split stat strings swapoff swapon sync sysctl tac tail tar taskset tee test time timeout top touch true truncate
tunctl uclampset ulimit umount uname uniq unix2dos unlink unshare uptime usleep uudecode uuencode uuidgen vmstat watch
wc which whoami xargs xxd yes
""".split()
BUSYBOX = """
awk bc dd diff expr getopt gunzip gzip ip md5sum more sha1sum sha256sum sha512sum stty tr tty vi zcat
""".split()
"""Tools that Android has and Debian's toybox has not; and those whose sums Android's takes from a fast library."""
_HAND_WRITTEN = Path(__file__).parent / "android"
_LINUX_LOADER, _LOADER = b"/lib/ld-linux-aarch64.so.1", b"/system/bin/linker64"
_LIBRARIES = ("libc.so.6", "libcrypt.so.1", "libm.so.6")


def android_root(say: Callable[[str], None]) -> Path:
    """The folder of the root, made in the cache if it is not there; all stand-ins share it, and nobody writes to it.

    Raises:
        DeviceError: Debian's packages cannot be had here.
    """
    form = [path.read_text() for path in (Path(__file__), *sorted(_HAND_WRITTEN.iterdir()))]
    return rootfs.made("android", PACKAGES, say, _finish, form) / "root" / "android"


def _finish(debian: Path) -> None:
    """Lay the packages' programs out as Android does; what else was unpacked goes."""
    root = debian / "android"
    tools = root / "system" / "bin"
    for made in ("dev", "proc", "sys", "data", "product/bin", "system/bin", "system/xbin", "system/etc", "vendor/bin",
                 "vendor/services", "lib/aarch64-linux-gnu"):  # fmt: skip
        (root / made).mkdir(parents=True)
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (root / "dev" / name).touch()
    for name, target in (("bin", "/system/bin"), ("etc", "/system/etc"), ("sdcard", "/data/media/0")):
        (root / name).symlink_to(target)
    shutil.copy(debian / "usr/lib/aarch64-linux-musl/bin/mksh", tools / "sh")
    shutil.copy(debian / "bin/busybox", root / "system/xbin/busybox")
    _move_loader(debian, root)
    for library in _LIBRARIES:
        shutil.copy(debian / "lib/aarch64-linux-gnu" / library, root / "lib/aarch64-linux-gnu")
    for names, program in ((TOYBOX, "toybox"), (BUSYBOX, "../xbin/busybox")):
        for name in names:
            (tools / name).symlink_to(program)
    for name in ("getprop", "dumpsys"):
        shutil.copy(_HAND_WRITTEN / name, tools)
        (tools / name).chmod(0o755)
    shutil.copy(_HAND_WRITTEN / "build.prop", root / "system")
    (root / "system/etc/passwd").write_text("root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000::/:/system/bin/sh\n")
    (root / "system/etc/group").write_text("root:x:0:\nshell:x:2000:\n")
    for rest in debian.iterdir():
        if rest.is_symlink():
            rest.unlink()
        elif rest != root:
            shutil.rmtree(rest)


def _move_loader(debian: Path, root: Path) -> None:
    """Put the loader in Android's place, and have toybox look there."""
    toybox = (debian / "bin/toybox").read_bytes()
    moved = toybox.replace(_LINUX_LOADER + b"\0", _LOADER.ljust(len(_LINUX_LOADER), b"\0") + b"\0")
    program = root / "system/bin/toybox"
    program.write_bytes(moved)
    program.chmod(0o755)
    shutil.copy(debian / "lib/ld-linux-aarch64.so.1", root / _LOADER.decode().lstrip("/"))
