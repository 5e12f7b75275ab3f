"""Devices are recognised by what they say of themselves, and never taken for one that their code would not run on."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune import compiling, profiles

PHONE = {"machine": "aarch64", "sdk": 29, "abi": "arm64-v8a"}
NEON = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
A53 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@pytest.mark.parametrize(
    ("facts", "target"),
    [
        ({"board": "Raspberry Pi 2 Model B Rev 1.1", "machine": "armv7l", "features": NEON}, "rpi2"),
        ({"board": "Raspberry Pi 3 Model B Rev 1.2", "machine": "aarch64", "features": A53}, "rpi3b"),
        ({"board": "Raspberry Pi 3 Model B Plus Rev 1.3", "machine": "aarch64", "features": A53}, "rpi3b"),
        ({"board": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64", "features": A53}, "rpi4"),
        ({"board": "Raspberry Pi 5 Model B Rev 1.0", "machine": "aarch64", "features": A76}, "rpi5"),
        ({"board": "Raspberry Pi Zero 2 W Rev 1.0", "machine": "aarch64", "features": A53}, "rpi-zero2"),
        ({"board": "", "machine": "aarch64"}, "linux-arm64"),
        ({"board": "Orange Pi 5", "machine": "aarch64", "features": A76}, "linux-arm64"),
        ({"board": "20XW", "machine": "x86_64", "features": "sse2 fma f16c bmi2 avx2"}, "linux-x86-64"),
        ({"model": "EML-L29", **PHONE}, "huawei-p20"),
        ({"model": "EML-L09", **PHONE}, "huawei-p20"),
        ({"model": "MI 9", "features": A76, **PHONE}, "xiaomi-mi9"),
        ({"model": "SM-P610", **PHONE}, "galaxy-tab-s6-lite"),
        ({"model": "SM-P615", **PHONE}, "galaxy-tab-s6-lite"),
        ({"model": "Pixel 8", **PHONE}, "android-arm64"),
        # another system than the board's own: its code would not run, or not fit
        ({"board": "Raspberry Pi 4 Model B Rev 1.4", "machine": "armv7l", "features": NEON}, "rpi2"),
        ({"board": "Raspberry Pi 3 Model B Rev 1.2", "machine": "armv8l", "features": NEON}, "rpi2"),
        ({"board": "Raspberry Pi 5 Model B Rev 1.0", "machine": "aarch64", "features": A53}, "linux-arm64"),
        # nothing fits: no NEON, no AVX2, another architecture
        ({"board": "Raspberry Pi Model B Rev 2", "machine": "armv6l"}, None),
        ({"board": "", "machine": "armv7l", "features": "half thumb vfpv3 vfpv3d16"}, None),
        ({"board": "", "machine": "x86_64", "features": "sse2 ssse3"}, None),
        ({"board": "", "machine": "riscv64"}, None),
    ],
)
def test_a_device_is_recognised_by_its_facts(facts: dict[str, Any], target: str | None) -> None:
    assert profiles.recognise(facts) == target


def test_every_profile_is_a_target_and_its_clusters_are_of_different_cores() -> None:
    assert sorted([compiling.HOST, *profiles.profiles()]) == compiling.targets()
    for name, profile in profiles.profiles().items():
        assert compiling.target(name).triple == profile.triple
        cores = [core for cluster in profile.device.clusters for core in cluster]
        assert len(set(cores)) == len(cores)
        assert sorted(cores) == sorted(profile.device.fastest_first)


def test_large_cores_come_first() -> None:
    assert profiles.profiles()["xiaomi-mi9"].device.fastest_first == [7, 6, 5, 4, 3, 2, 1, 0]
