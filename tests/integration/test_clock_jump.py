"""The clock of a board jumps back and forth while a launch is timed there: no sample and no reading may notice."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeprune as ep
from edgeprune import compiling
from edgeprune.transport.remote import RemoteTransport
from edgeprune.transport.ssh import SshLink
from edgeprune.transport.worker import Worker
from tests.standins import Reached

ROOT = "root"
YEARS_NS = 365 * 86400 * 10**9


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.onnx"
    ep.export_onnx(ep.models.build("lenet5", num_classes=10).eval(), torch.randn(1, 1, 28, 28), path)
    return compiling.compile_onnx(path, tmp_path / "out", runtime="native", target="rpi4").model


def test_times_and_readings_do_not_follow_the_board_s_clock(virtual_vm: Reached, program: Path, tmp_path: Path) -> None:
    image = np.zeros((1, 1, 28, 28), np.float32)
    image.tofile(tmp_path / "in.bin")
    at_first = virtual_vm.run("date +%s").stdout.decode().strip()
    identity, known = Path(virtual_vm.identity), Path(virtual_vm.known_hosts)
    link = SshLink("vm", virtual_vm.host, virtual_vm.user, virtual_vm.port, identity, known)
    device = RemoteTransport(link)
    done = threading.Event()
    jumps: list[int] = []

    def jump() -> None:
        while not done.wait(0.2):
            for when in ("@86400", f"@{at_first}"):  # 1970: the kernel refuses what is before its start
                jumps.append(virtual_vm.run(f"date -s {when} && sleep 0.3", user=ROOT).returncode)

    jumping = threading.Thread(target=jump)
    try:
        model, vector = device.push([program])[0], device.push([tmp_path / "in.bin"])[0]
        with Worker.start(device, "native", None, [model, "serve", "--threads", "1"]) as worker:
            worker.load(model, threads=1)
            worker.bind([(vector, image)])
            jumping.start()
            samples: list[int] = []
            while len(jumps) < 4 and jumping.is_alive():
                samples += worker.time(group=1, samples=20, seconds=2.0).samples_ns
        assert len(jumps) >= 4
        assert set(jumps) == {0}
        years = [sample for sample in samples if not 0 < sample < YEARS_NS]
        assert years == []
        seconds = [reading["uptime_s"] for reading in worker.readings]
        assert seconds == sorted(seconds)
        assert not seconds or seconds[-1] - seconds[0] < YEARS_NS / 1e9
    finally:
        done.set()
        if jumping.is_alive():
            jumping.join()
        virtual_vm.run(f"date -s @{at_first}", user=ROOT)
        device.close()
