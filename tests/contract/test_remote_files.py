"""Files on a reached device: what lies there under its name is what was sent, whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from edgeprune.errors import LinkLostError, NoRoomError, TransportError
from edgeprune.transport import RemoteTransport
from edgeprune.transport.remote_files import RemoteFiles
from edgeprune.transport.ssh import SshLink
from tests.contract.faulty_proxy import FaultyProxy
from tests.contract.loopback_sshd import LoopbackSshd
from tests.standins import start


def random_file(path: Path, size: int = 100_000) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def test_files_are_private_and_keep_whether_they_can_be_executed(link: SshLink, tmp_path: Path) -> None:
    sources = [random_file(tmp_path / "program"), random_file(tmp_path / "weights")]
    sources[0].chmod(0o755)
    sources[1].chmod(0o644)
    remotes = [f"{link.folder}/pushed/x/{source.name}" for source in sources]
    RemoteFiles(link).put(sources, remotes)
    assert [Path(remote).read_bytes() for remote in remotes] == [source.read_bytes() for source in sources]
    assert [Path(remote).stat().st_mode & 0o777 for remote in remotes] == [0o700, 0o600]
    assert [parent.stat().st_mode & 0o777 for parent in Path(remotes[0]).parents[:3]] == [0o700] * 3


def test_what_is_there_is_not_copied_again_unless_it_is_damaged(link: SshLink, tmp_path: Path) -> None:
    files = RemoteFiles(link)
    sources = [random_file(tmp_path / "a"), random_file(tmp_path / "b")]
    remotes = [Path(link.folder, source.name) for source in sources]
    files.put(sources, list(map(str, remotes)))
    before = [remote.stat().st_ino for remote in remotes]
    with remotes[1].open("r+b") as damaged:
        damaged.write(b"other")
    files.put(sources, list(map(str, remotes)))
    after = [remote.stat().st_ino for remote in remotes]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert remotes[1].read_bytes() == sources[1].read_bytes()


LOSING = '#!/bin/sh\n/bin/cat "$@" | head -c 99999\n'


def test_a_device_that_loses_bytes_without_a_word_is_found_out(
    sshd: LoopbackSshd, link: SshLink, tmp_path: Path
) -> None:
    source = random_file(tmp_path / "source", 100_000)
    sound = Path(sshd.folder, "sound")
    sound.write_bytes(source.read_bytes())
    sshd.stop()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cat").write_text(LOSING)
    (tmp_path / "bin" / "cat").chmod(0o755)
    sshd.settings["SetEnv"] += f" PATH={tmp_path}/bin:/usr/bin:/bin"
    sshd.start()
    files = RemoteFiles(link)
    with pytest.raises(TransportError, match="not what was sent") as caught:
        files.put([source], [f"{link.folder}/x/copy"])
    assert "does not have the hash" in (caught.value.detail or "")
    assert list(Path(link.folder, "x").iterdir()) == []
    with pytest.raises(TransportError, match="does not equal it"):
        files.get(str(sound), tmp_path / "back")


def test_a_device_that_cannot_read_its_files_is_told(sshd: LoopbackSshd, link: SshLink, tmp_path: Path) -> None:
    sources = [random_file(tmp_path / name) for name in "abc"]
    remotes = [f"{link.folder}/{source.name}" for source in sources]
    RemoteFiles(link).put(sources[:2], remotes[:2])
    sshd.stop()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sha256sum").write_text("#!/bin/sh\necho 'sha256sum: Input/output error' >&2\nexit 1\n")
    (tmp_path / "bin" / "sha256sum").chmod(0o755)
    sshd.settings["SetEnv"] += f" PATH={tmp_path}/bin:/usr/bin:/bin"
    sshd.start()
    with pytest.raises(TransportError, match="cannot look at what is there") as caught:
        RemoteFiles(link).put(sources, remotes)
    assert "Input/output error" in (caught.value.detail or "")


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path) -> None:
    with contextlib.contextmanager(start)("virtual-pi", tmp_path / "pi", disk_bytes=6_000_000) as pi:
        link = SshLink("pi", pi.host, pi.user, pi.port, Path(pi.identity), Path(pi.known_hosts))
        files = RemoteFiles(link)
        small, large = random_file(tmp_path / "small"), random_file(tmp_path / "large file", 9_000_000)
        files.put([small], [f"{link.folder}/pushed/small"])
        with pytest.raises(TransportError, match=r"no room for large file in .*: 9.0 MB to copy; \d\.\d MB are free"):
            files.put([large], [f"{link.folder}/pushed/large file"])
        left = link.call(["ls", "-A", f"{link.folder}/pushed"]).stdout
        assert left == b"small\n"
        files.get(f"{link.folder}/pushed/small", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == small.read_bytes()
        link.close()


def test_what_finds_no_room_takes_that_of_what_was_discarded(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """The disk holds two files beside the agent: `cat`, which writes them, says so."""
    sshd.stop()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cat").write_text(
        f"""#!/bin/sh
if [ $(find {sshd.cache} -path '*/pushed/*' -name 'file*' | wc -l) -ge 2 ]; then
  echo 'cat: write error: No space left on device' >&2
  exit 1
fi
exec /bin/cat "$@"
"""
    )
    (tmp_path / "bin" / "cat").chmod(0o755)
    sshd.settings["SetEnv"] += f" PATH={tmp_path}/bin:/usr/bin:/bin"
    sshd.start()
    with contextlib.closing(RemoteTransport(sshd.link())) as board:
        sources = [random_file(tmp_path / f"file-{number}") for number in range(4)]
        first, second = (board.push([source])[0] for source in sources[:2])
        with pytest.raises(NoRoomError, match="no room for file-2"):
            board.push([sources[2]])
        board.discard(first)
        board.discard(second)
        assert board.push([sources[1]]) == [second]  # it is needed again
        (third,) = board.push([sources[2]])
        assert not Path(first).exists()
        for source, remote in zip(sources[1:3], (second, third), strict=True):
            assert Path(remote).read_bytes() == source.read_bytes()
        with pytest.raises(NoRoomError, match="no room for file-3"):
            board.push([sources[3]])


def test_a_folder_that_cannot_be_made_is_told(sshd: LoopbackSshd, link: SshLink, tmp_path: Path) -> None:
    sshd.cache.write_text("a file where the folder should be")
    with pytest.raises(TransportError, match="cannot make the folder") as caught:
        RemoteFiles(link).put([random_file(tmp_path / "a")], [f"{link.folder}/a"])
    assert "Not a directory" in (caught.value.detail or "")


@pytest.mark.parametrize("name", ["nothing", "folder"])
def test_what_is_no_file_is_told(link: SshLink, tmp_path: Path, name: str) -> None:
    link.call(["mkdir", "-p", f"{link.folder}/folder"])
    with pytest.raises(TransportError, match=f"there is no /.*/{name}"):
        RemoteFiles(link).get(f"{link.folder}/{name}", tmp_path / "back")


def test_a_copy_that_was_cut_off_is_not_there(sshd: LoopbackSshd, proxy: FaultyProxy, tmp_path: Path) -> None:
    link = sshd.link(proxy.port)
    files = RemoteFiles(link)
    source = random_file(tmp_path / "source", 30_000_000)
    remote = Path(link.folder, "x", "copy")

    def break_it() -> None:
        while not list(remote.parent.glob(".*.part")):
            time.sleep(0.001)
        proxy.reset()

    breaking = threading.Thread(target=break_it)
    breaking.start()
    with pytest.raises(LinkLostError):
        files.put([source], [str(remote)])
    breaking.join()
    assert not remote.exists()
    assert [path.suffix for path in remote.parent.iterdir()] == [".part"]
    files.put([source], [str(remote)])
    assert remote.read_bytes() == source.read_bytes()
    assert list(remote.parent.iterdir()) == [remote]
    link.close()
