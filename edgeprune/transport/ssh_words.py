"""What OpenSSH's client says when it fails, as errors that name the cause and the command that mends it.

Start with `ssh_error`. The client must run with LC_ALL=C and LogLevel=INFO; its wordings are those of OpenSSH's
ssh.c, sshconnect.c, sshconnect2.c and misc.c, unchanged from 7.6 to 10.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.errors import LinkLostError, TransportError

_TAIL = 2000


@dataclass(frozen=True)
class Login:
    """Who logs in where, for the commands that a hint tells to run.

    Args:
        device: The device as a matrix writes it.
        words: The words after `ssh` that log in by hand, such as `["-p", "2222", "pi@host"]`.
    """

    device: str
    words: tuple[str, ...]

    def line(self, program: str = "ssh") -> str:
        """The command that logs in (or `ssh-copy-id`, which takes the same words)."""
        return shlex.join([program, *self.words])


def ssh_error(login: Login, stderr: str) -> TransportError:
    """The error for a client that ended before the program on the device did, from what it wrote to stderr.

    LinkLostError where the device or the network may come back by itself; a plain TransportError where a person has
    to do something.
    """
    for pattern, kind, words in _CAUSES:
        found = re.search(pattern, stderr)
        if found:
            message, hint = words(login, found, stderr)
            return kind(f"{login.device}: {message}", hint=hint, detail=_tail(stderr))
    return LinkLostError(
        f"{login.device}: the connection ended before the program on it did",
        hint=f"see whether it still answers: {login.line()} true",
        detail=_tail(stderr),
    )


def _tail(stderr: str) -> str | None:
    return stderr[-_TAIL:].strip() or None


_Words = Callable[[Login, "re.Match[str]", str], tuple[str, str]]


def _changed_key(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    host = re.search(r"Host key for (\S+) has changed", stderr)
    file = re.search(r"Offending (?:\S+ )?key in (.+):\d+", stderr)
    forget = ["ssh-keygen", *(["-f", file[1]] if file else []), "-R", host[1] if host else login.words[-1]]
    return (
        "its host key is not the one that was accepted before: somebody may be in between, or it was set up anew",
        f"only if you know that it was set up anew: {shlex.join(forget)}; then {login.line()} and accept the new key",
    )


def _unknown_key(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return (
        f"the host key of {found[1]} is not known here yet",
        f"run {login.line()} once, compare the fingerprint with the device's own "
        "(there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and answer yes",
    )


def _denied(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return (
        f"it does not let {login.words[-1]} in without a password",
        f"put your key there: {login.line('ssh-copy-id')} (no key yet: ssh-keygen -t ed25519; a key with a passphrase: "
        "ssh-add)",
    )


def _unresolved(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return (
        f"no address is known for {found[1]}",
        f"is it switched on, in this network and spelled right? try ping {found[1]}, or its address for its name",
    )


def _refused(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return (
        f"{found[1]} answers, but nothing listens for ssh at its port {found[2]}",
        "on the device: sudo systemctl enable --now ssh; if it listens elsewhere, write user@host:port",
    )


def _unreachable(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return f"it cannot be reached: {found[0]}", "is it switched on and in this network? try ping"


def _dead(login: Login, found: re.Match[str], stderr: str) -> tuple[str, str]:
    return f"the connection broke: {found[0].strip()}", f"see whether it still answers: {login.line()} true"


def _plain(message: str, hint: str) -> _Words:
    return lambda login, found, stderr: (f"{message}: {found[0].strip()}", hint)


_CAUSES: list[tuple[str, type[TransportError], _Words]] = [
    ("REMOTE HOST IDENTIFICATION HAS CHANGED|differs from the key for the IP address", TransportError, _changed_key),
    (r"No \S+ host key is known for (.+?) and you have requested strict checking", TransportError, _unknown_key),
    (
        r"(?:Bad configuration option|Bad owner or permissions on|terminating, \d+ bad|unsupported option).*",
        TransportError,
        _plain("ssh cannot read its configuration", "mend ~/.ssh/config"),
    ),
    (
        r"Permissions .* for '.*' are too open",
        TransportError,
        _plain("ssh does not use a key that others can read", "chmod 600 that file"),
    ),
    (r"Permission denied \(|Too many authentication failures", TransportError, _denied),
    (
        r"Unable to negotiate with .*",
        TransportError,
        _plain("its ssh server and this client have no method in common", "update the system of the device"),
    ),
    (
        r"Host key verification failed.*",
        TransportError,
        _plain("its host key was refused", "run ssh by hand, with -v, to see why"),
    ),
    (r"Could not resolve hostname (\S+?):", LinkLostError, _unresolved),
    (r"connect to host (\S+) port (\d+): Connection refused", LinkLostError, _refused),
    (
        r"(?:Connection|Operation) timed out.*|No route to host|Network is unreachable|Host is down",
        LinkLostError,
        _unreachable,
    ),
    (
        r"Timeout, server .* not responding|.*Connection (?:reset|closed|to \S+ closed).*|.*Broken pipe",
        LinkLostError,
        _dead,
    ),
]
