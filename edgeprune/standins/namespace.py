"""A root of another architecture in namespaces of its own: its programs run under qemu-user, the machine sees nothing.

The kernel starts programs of the other architecture through a binfmt_misc that belongs to a user namespace (Linux 6.7
or newer), so neither root nor a change of the machine is needed. The root is mounted read-only; what must be writable
is mounted over it. Mounts and processes are gone with the command. Start with `Setting`, then `enter`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgeprune.standins.supervisor import die_with_parent

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000  # mount, host name, IPC, process numbers
_NEW_USER = 0x10000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 4, 38
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_UNPRIVILEGED = 59_999  # whom root runs a stand-in as: the last of the numbers that Debian gives to users
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# how the ELF header of a 64-bit little-endian aarch64 program begins, and which bits of it count
_MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


@dataclass(frozen=True)
class Setting:
    """What the command sees.

    Attributes:
        root: Folder that becomes `/`, read-only.
        interpreter: Static qemu-user for its programs, a path outside; None: they are of this machine's architecture.
        command: A program of the root and its arguments.
        binds: Writable folders and files: (outside, inside the root).
        scratch: Empty folders in memory: (inside the root, bytes at most).
        host_name: The host's name.
        user: Number of the only user.
    """

    root: str
    interpreter: str | None
    command: Sequence[str]
    binds: Sequence[tuple[str, str]] = ()
    scratch: Sequence[tuple[str, int]] = field(default=(("tmp", 1 << 30), ("run", 1 << 26)))
    host_name: str = "localhost"
    user: int = 1000

    def words(self) -> list[str]:
        """The command line that enters this setting."""
        return [sys.executable, "-c", f"import {__name__} as own; own.main()", json.dumps(asdict(self))]


def outside_user() -> int:
    """Who owns, outside, what the stand-in's user writes: whoever starts it, but never root."""
    return os.geteuid() or _UNPRIVILEGED


def _outside_group() -> int:
    return os.getegid() if os.geteuid() else _UNPRIVILEGED


def enter(setting: Setting, inside: Callable[[], None] | None = None) -> int:
    """Run the command in its setting; its exit status.

    Args:
        setting: What is seen there.
        inside: What is done there instead, as the first process, by this Python; nothing can be imported any more.

    Raises:
        OSError: this machine does not allow it; the message says what.
    """
    with _helped_by_outside(), _needing("user namespaces (sysctl user.max_user_namespaces)"):
        _call(_LIBC.unshare(_NEW_USER | _NEW_NAMESPACES))
    die_with_parent()
    init = os.fork()
    if init:
        _, status = os.waitpid(init, 0)
        return os.waitstatus_to_exitcode(status) & 0xFF
    try:
        _mount_from_outside(setting)
        # from here on nobody outside: files in memory belong to the user, who is root among them for now
        with contextlib.suppress(PermissionError):  # only who was root may drop groups
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _mount_inside(setting)
        _become(setting.user)
        if inside is not None:
            inside()
            os._exit(0)
        os.execve(setting.command[0], list(setting.command), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(125)


def _mount_from_outside(setting: Setting) -> None:
    """What needs paths outside: the root itself, folders of the machine, the interpreter. Ends within the root."""
    with _needing("mounts in a user namespace"):
        _mount("none", "/", flags=_RECURSIVE | _PRIVATE)
        _mount(setting.root, setting.root, flags=_BIND | _RECURSIVE)
        os.chdir(setting.root)
    with _needing("a /proc of its own, which some containers forbid"):
        _mount("proc", "proc", "proc", flags=_NO_SUID | _NO_DEVICES)
    with _needing("mounts in a user namespace"):
        for outside, inside in setting.binds:
            _mount(outside, inside, flags=_BIND)
            _mount("none", inside, flags=_BIND | _REMOUNT | _NO_SUID | _NO_DEVICES)
    if setting.interpreter:
        with _needing("a binfmt_misc of its own (Linux 6.7 or newer)"):
            _mount("binfmt_misc", "proc/sys/fs/binfmt_misc", "binfmt_misc")
            # F: the interpreter is opened now, and need not be found in the root
            rule = b":other:M::" + _MAGIC + b":" + _MASK + b":" + setting.interpreter.encode() + b":F"
            Path("proc/sys/fs/binfmt_misc/register").write_bytes(rule)


def _mount_inside(setting: Setting) -> None:
    for inside, size in (*setting.scratch, ("dev", 1 << 20)):
        _mount("tmpfs", inside, "tmpfs", flags=_NO_SUID, data=f"size={size},mode=755")
    for name in _DEVICES:
        Path("dev", name).touch()
        _mount(f"/dev/{name}", f"dev/{name}", flags=_BIND)
    for name in ("dev/pts", "dev/shm"):
        Path(name).mkdir()
    _mount("devpts", "dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=620")
    _mount("tmpfs", "dev/shm", "tmpfs", flags=_NO_SUID | _NO_DEVICES)
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd")):
        Path("dev", name).symlink_to(target)
    for name in ("tmp", "dev/shm"):
        if Path(name).is_dir():  # Android has no /tmp
            Path(name).chmod(0o1777)
    _mount("none", ".", flags=_BIND | _REMOUNT | _READ_ONLY | _NO_SUID)
    socket.sethostname(setting.host_name)
    _call(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."))
    _call(_LIBC.umount2(b".", _DETACH))
    os.chdir("/")


def _become(user: int) -> None:
    """Be that user from now on, without any right beyond."""
    _LIBC.prctl(_SET_DUMPABLE, 1)  # or the files below would belong to nobody after the change of user
    _call(_LIBC.unshare(_NEW_USER))
    Path("/proc/self/setgroups").write_text("deny")
    for kind in ("uid_map", "gid_map"):
        Path("/proc/self", kind).write_text(f"{user} 0 1")
    _LIBC.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    die_with_parent()


@contextlib.contextmanager
def _helped_by_outside() -> Iterator[None]:
    """Have a process that stays outside say who this process's user is, as soon as the block is left."""
    user, group = outside_user(), _outside_group()  # in the block this process becomes another user
    ours, theirs = socket.socketpair()
    me, helper = os.getpid(), os.fork()
    if helper == 0:
        ours.close()
        status = 1
        if theirs.recv(1):
            with contextlib.suppress(OSError):
                if os.geteuid():
                    Path(f"/proc/{me}/setgroups").write_text("deny")
                for kind, number in (("uid_map", user), ("gid_map", group)):
                    Path(f"/proc/{me}/{kind}").write_text(f"0 {number} 1")
                status = 0
        os._exit(status)
    theirs.close()
    with ours:
        yield
        ours.send(b"1")
    _, status = os.waitpid(helper, 0)
    if status:
        raise OSError(f"user {user} and group {group} cannot be mapped into a user namespace")


@contextlib.contextmanager
def _needing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"this machine does not allow {what}: {error}") from error


def _mount(source: str, target: str, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    words = [text.encode() for text in (source, target, kind)]
    _call(_LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()), f"{source} on {target}")


def _call(result: int, what: str = "") -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)


def main() -> None:
    """What `Setting.words` starts."""
    try:
        sys.exit(enter(Setting(**json.loads(sys.argv[1]))))
    except OSError as error:
        sys.exit(str(error))
