"""The way over ssh against a real OpenSSH server: what goes wrong is told with its cause, and nothing stays behind."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from edgeprune.errors import LinkLostError, TransportError
from edgeprune.transport.ssh import SshLink
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd, free_port, new_key
from tests.processes import soon

QUICK = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")


def test_the_keys_may_lie_in_a_folder_of_any_name(sshd: LoopbackSshd, tmp_path: Path) -> None:
    odd = tmp_path / '%h of "mine" \\ %%'
    odd.mkdir()
    for name in (sshd.identity, sshd.known_hosts):
        shutil.copy(name, odd / name.name)
    link = SshLink(
        "board", "127.0.0.1", sshd.user, sshd.port, odd / sshd.identity.name, odd / sshd.known_hosts.name,
        ("-F", "none", "-o", "IdentityAgent=none"),
    )  # fmt: skip
    assert link.call(["echo", "in"]).stdout == b"in\n"
    link.close()


# --- what is wrong is told, with the command that mends it ------------------------------------------------------------


def refused(link: SshLink) -> TransportError:
    """The error of a check that a person has to do something about."""
    with pytest.raises(TransportError) as caught:
        link.check()
    link.close()
    assert not isinstance(caught.value, LinkLostError)
    assert caught.value.message.startswith("board: ")
    return caught.value


def test_an_unknown_host_key_is_never_accepted(sshd: LoopbackSshd, link: SshLink) -> None:
    sshd.known_hosts.write_text("")
    error = refused(link)
    assert "not known here yet" in error.message
    assert f"ssh -p {sshd.port}" in (error.hint or "")
    assert f"{sshd.user}@127.0.0.1" in (error.hint or "")
    assert sshd.known_hosts.read_text() == ""


def test_a_changed_host_key_is_told_as_a_danger_with_the_command_that_forgets_it(
    sshd: LoopbackSshd, link: SshLink, tmp_path: Path
) -> None:
    sshd.known_hosts.write_text(sshd.known_line(new_key(tmp_path / "other")))
    error = refused(link)
    assert "somebody may be in between" in error.message
    command = (error.hint or "").split(": ", 1)[1].split("; then")[0]
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert "not known here yet" in refused(link).message


def test_a_key_that_is_not_authorised_is_told(sshd: LoopbackSshd, link: SshLink) -> None:
    sshd.authorized.write_text("")
    error = refused(link)
    assert f"does not let {sshd.user}@127.0.0.1 in" in error.message
    assert f"ssh-copy-id -p {sshd.port}" in (error.hint or "")
    assert "Permission denied (publickey" in (error.detail or "")


def test_a_key_that_others_can_read_is_told(sshd: LoopbackSshd, link: SshLink) -> None:
    sshd.identity.chmod(0o644)
    assert "key that others can read" in refused(link).message


def test_a_mistake_in_the_configuration_is_told(sshd: LoopbackSshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Hots board\n")
    error = refused(sshd.link(options=("-F", str(tmp_path / "config"))))
    assert "cannot read its configuration: Bad configuration option: hots" in error.message


def test_a_login_that_prints_before_programs_run_is_told(sshd: LoopbackSshd, link: SshLink) -> None:
    restart(sshd, 'echo "Have fun!"; eval "$SSH_ORIGINAL_COMMAND"')
    error = refused(link)
    assert "prints 'Have fun!\\n'" in error.message
    assert ".bashrc" in (error.hint or "")


def test_a_login_that_runs_nothing_is_told(sshd: LoopbackSshd, link: SshLink) -> None:
    restart(sshd, 'echo "This account is currently not available."; exit 1')
    assert "This account is currently not available." in refused(link).message


def restart(sshd: LoopbackSshd, forced: str) -> None:
    sshd.stop()
    sshd.settings["ForceCommand"] = forced
    sshd.start()


def test_a_client_that_is_not_installed_is_told(link: SshLink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "openssh-client" in (refused(link).hint or "")


def lost(link: SshLink) -> LinkLostError:
    with pytest.raises(LinkLostError) as caught:
        link.check()
    link.close()
    return caught.value


def test_a_port_where_nothing_listens_is_told(sshd: LoopbackSshd) -> None:
    port = free_port()
    error = lost(sshd.link(port))
    assert f"nothing listens for ssh at its port {port}" in error.message
    assert "systemctl enable --now ssh" in (error.hint or "")


def test_a_name_without_an_address_is_told(sshd: LoopbackSshd) -> None:
    error = lost(SshLink("board", "nowhere.invalid", "pi"))
    assert "no address is known for nowhere.invalid" in error.message


def test_a_device_that_says_nothing_is_told(sshd: LoopbackSshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = lost(sshd.link(silent.getsockname()[1], ("-o", "ConnectTimeout=1")))
    assert "cannot be reached: Connection timed out" in error.message


# --- programs ---------------------------------------------------------------------------------------------------------


def test_the_status_of_a_program_is_its_own_even_where_the_client_s_would_be_ambiguous(link: SshLink) -> None:
    for status in (0, 1, 126, 127, 130, 254, 255):
        done = link.call(["sh", "-c", f"echo out; echo err >&2; exit {status}"])
        assert (done.status, done.stdout, done.stderr) == (status, b"out\n", b"err\n")
    assert link.call(["sh", "-c", "kill -9 $$"]).status == 128 + 9
    assert link.call(["/nowhere/program"]).status == 127


def test_streams_carry_every_byte(link: SshLink) -> None:
    data = bytes(range(256)) * 20_000
    assert link.call(["cat"], stdin=data).stdout == data


def test_arguments_arrive_as_they_are(link: SshLink) -> None:
    arguments = ["", " ", "it's", 'a"b', "$(id)", "`id`", "a\nb", "\\", "-n", "*", "ü", os.fsdecode(b"\xff")]
    done = link.call(["printf", r"%s\0", *arguments])
    assert done.stdout == b"".join(os.fsencode(argument) + b"\0" for argument in arguments)


def test_a_program_that_does_not_end_is_given_up(link: SshLink) -> None:
    with pytest.raises(LinkLostError, match="no answer for 1 s"):
        link.call(["sleep", "60"], timeout=1.0)


def test_a_host_of_the_configuration_behind_another_is_reached(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """An alias with ProxyJump; and what else a user may have set there neither runs, listens nor asks."""
    forwarded = free_port()
    (tmp_path / "config").write_text(f"""
Host *
  HostName 127.0.0.1
  Port {sshd.port}
  User {sshd.user}
  IdentityFile {sshd.identity}
  UserKnownHostsFile {sshd.known_hosts}
Host far
  ProxyJump near
  RemoteCommand top
  RequestTTY force
  LocalForward {forwarded} 127.0.0.1:{sshd.port}
  ControlMaster auto
  ControlPersist yes
  ControlPath {tmp_path}/own
  LogLevel QUIET
""")
    link = SshLink("board", "far", options=("-F", str(tmp_path / "config")))
    assert link.call(["echo", "here"]).stdout == b"here\n"
    assert len(sshd.connections()) == 2
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", forwarded)) != 0
    link.close()
    assert not (tmp_path / "own").exists()
    assert soon(lambda: not sshd.connections())


# --- one connection, and nothing that stays behind --------------------------------------------------------------------


def test_an_agent_s_key_lets_in(sshd: LoopbackSshd, tmp_path: Path) -> None:
    meeting = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(meeting)], stdout=subprocess.DEVNULL)
    try:
        assert soon(meeting.exists)
        held = {**os.environ, "SSH_AUTH_SOCK": str(meeting)}
        subprocess.run(["ssh-add", "-q", str(sshd.identity)], env=held, check=True, capture_output=True)
        sshd.identity.unlink()
        options = ("-F", "none", "-o", f"IdentityAgent={meeting}")
        link = SshLink("board", "127.0.0.1", sshd.user, sshd.port, known_hosts=sshd.known_hosts, options=options)
        assert link.call(["echo", "in"]).stdout == b"in\n"
        subprocess.run(["ssh-add", "-q", "-D"], env=held, check=True, capture_output=True)
        assert link.call(["echo", "still in"]).stdout == b"still in\n", "the connection is open"
        link.close()
        assert "Permission denied" in refused(link).detail
    finally:
        agent.terminate()
        agent.wait()


def test_certificates_let_in_and_vouch_for_the_host(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """One authority signs the user's key and the host's: neither is listed anywhere by itself."""
    authority = new_key(tmp_path / "authority")
    public = authority.with_suffix(".pub")
    host_key = Path(sshd.settings["HostKey"])
    for key, words in ((sshd.identity, ["-n", sshd.user]), (host_key, ["-h", "-n", "127.0.0.1"])):
        signs = ["ssh-keygen", "-q", "-s", str(authority), "-I", key.name, *words, str(key.with_suffix(".pub"))]
        subprocess.run(signs, check=True, capture_output=True)
    sshd.stop()
    sshd.settings |= {"TrustedUserCAKeys": str(public), "HostCertificate": f"{host_key}-cert.pub"}
    sshd.start()
    sshd.authorized.write_text("")
    sshd.known_hosts.write_text(f"@cert-authority * {public.read_text()}")
    link = sshd.link()
    assert link.call(["echo", "in"]).stdout == b"in\n"
    link.close()
    sshd.known_hosts.write_text(f"@cert-authority * {new_key(tmp_path / 'other').with_suffix('.pub').read_text()}")
    assert "not known here yet" in refused(link).message


def test_everything_goes_through_one_connection(sshd: LoopbackSshd, link: SshLink) -> None:
    for _ in range(3):
        link.call(["true"])
    assert len(sshd.connections()) == 1


def test_nothing_stays_behind(
    sshd: LoopbackSshd, link: SshLink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = set(psutil.Process().children())
    link.check()
    assert len(set(psutil.Process().children()) - before) == 1  # the connection
    link.close()
    link.close()
    assert set(psutil.Process().children()) <= before
    assert list((tmp_path / "tmp").iterdir()) == []
    assert soon(lambda: not sshd.connections())
    assert link.call(["echo", "again"]).stdout == b"again\n"


def test_a_laptop_that_is_killed_leaves_nothing(
    sshd: LoopbackSshd, link: SshLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a folder, which the next one there removes."""
    short = Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    program = f"""
import subprocess
from pathlib import Path
from edgeprune.transport.ssh import SshLink
link = SshLink("board", "127.0.0.1", {sshd.user!r}, {sshd.port}, Path({str(sshd.identity)!r}),
               Path({str(sshd.known_hosts)!r}))
program = subprocess.Popen(link.command(["cat"]), stdin=subprocess.PIPE)
print("up", flush=True)
link.call(["cat"], stdin=b"x" * 1000)
program.wait()
"""
    laptop = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert laptop.stdout is not None
    assert laptop.stdout.readline() == b"up\n"
    clients = psutil.Process(laptop.pid).children(recursive=True)
    assert len(clients) >= 2
    laptop.send_signal(signal.SIGKILL)
    laptop.wait()
    laptop.stdout.close()
    _, left = psutil.wait_procs(clients, timeout=10)
    assert left == []
    assert soon(lambda: not sshd.connections())
    assert len(list(short.iterdir())) <= 1
    link.check()
    link.close()
    assert list(short.iterdir()) == []
    short.rmdir()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_client_that_is_killed_is_replaced(sshd: LoopbackSshd, link: SshLink) -> None:
    link.check()
    for _ in range(3):
        (client,) = [child for child in psutil.Process().children() if child.name() == "ssh"]
        client.kill()
        assert link.call(["echo", "here"]).stdout == b"here\n"


def test_a_server_that_dies_under_a_program_is_told(sshd: LoopbackSshd, link: SshLink) -> None:
    link.check()
    power_cut = threading.Timer(0.5, sshd.stop)
    power_cut.start()
    with pytest.raises(LinkLostError):
        link.call(["sleep", "60"], timeout=50)
    power_cut.join()
    assert "nothing listens for ssh" in lost(link).message
    sshd.start()
    assert link.call(["echo", "here"]).stdout == b"here\n"


def test_a_cut_of_seconds_is_only_waited_for(sshd: LoopbackSshd, proxy: FaultyProxy, tmp_path: Path) -> None:
    link = sshd.link(proxy.port)
    link.check()
    proxy.cut()
    mending = threading.Timer(3.0, proxy.mend)
    mending.start()
    done = link.call(["sh", "-c", f"echo once >>{tmp_path}/runs; echo done"])
    assert not mending.is_alive()
    assert done.stdout == b"done\n"
    assert (tmp_path / "runs").read_text() == "once\n"
    assert len(sshd.connections()) == 1
    link.close()


def test_a_link_that_stays_cut_is_found_dead(sshd: LoopbackSshd, proxy: FaultyProxy) -> None:
    link = sshd.link(proxy.port, (*QUICK, "-o", "ConnectTimeout=1"))
    link.check()
    proxy.cut()
    with pytest.raises(LinkLostError):
        link.call(["true"], timeout=60)
    proxy.reset()
    assert link.call(["echo", "here"]).stdout == b"here\n"
    link.close()


@pytest.mark.parametrize("way", ["send", "fetch"])
def test_a_copy_whose_connection_breaks_is_no_copy(
    sshd: LoopbackSshd, proxy: FaultyProxy, tmp_path: Path, way: str
) -> None:
    link = sshd.link(proxy.port)
    (tmp_path / "source").write_bytes(os.urandom(30_000_000))
    link.check()
    began = proxy.passed

    def break_it() -> None:
        soon(lambda: proxy.passed > began + 1_000_000, 60)
        proxy.reset()

    breaking = threading.Thread(target=break_it)
    breaking.start()
    with pytest.raises(LinkLostError):
        getattr(link, way)(*as_arguments(way, tmp_path))
    breaking.join()
    getattr(link, way)(*as_arguments(way, tmp_path))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
    link.close()


def as_arguments(way: str, folder: Path) -> list[Path | str]:
    if way == "send":
        return [folder / "source", str(folder / "copy")]
    return [str(folder / "source"), folder / "copy"]


def test_closing_ends_a_wait_at_once(sshd: LoopbackSshd, proxy: FaultyProxy) -> None:
    """Whether it is for a program or still for the connection."""
    for cut_first in (False, True):
        link = sshd.link(proxy.port)
        proxy.mend()
        if not cut_first:
            link.check()
        proxy.cut()
        closing = threading.Timer(1.0, link.close)
        closing.start()
        with pytest.raises(LinkLostError):
            link.call(["true"], timeout=600)
        closing.join()
