"""What a device may say, and that it did: lines that are no answer, and answers that hold something else, end here.

Whatever runs on a device may write what it likes, so nothing of it is used before `read` has seen it. Start there; the
classes are the lines that the programs of `devices/` document: the agent, the workers, the doctor's look.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeprune.errors import GarbledAnswerError

T = TypeVar("T", bound="Said")
Count = Annotated[int, Field(ge=0)]


class Said(BaseModel):
    """A line of a device; what else stands in it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Started(Said):
    """The agent has started the program, on these cores; None where nothing could pin it."""

    cores: list[Count] | None


class SensorReading(Said):
    """What the agent has read: `uptime_s` seconds after the device's start, degrees Celsius, hertz by core."""

    uptime_s: float
    temp_c: float | None
    clock_hz: list[int] | None
    throttled: bool | None


class Exit(Said):
    """The program has ended; `stopped` says what the agent ended it for, None if it ended by itself.

    `refused` says why the device could not start it at all.
    """

    status: int
    stopped: str | None = None
    refused: str | None = None
    stderr: str = ""


class Loaded(Said):
    """A worker has loaded its model with these versions of libraries."""

    versions: dict[str, str]


class Output(Said):
    """A file of raw numbers that a worker has written on the device."""

    path: str
    shape: list[Count]
    dtype: str


class Checked(Said):
    """A worker has run once and written its outputs."""

    outputs: list[Output]


class Samples(Said):
    """Wall times, nanoseconds."""

    samples_ns: list[Count]


class Memory(Said):
    """The largest resident memory that a worker's process has had."""

    peak_rss_bytes: Count


class Governor(Said):
    """The cores whose governor was set."""

    cores: list[Count]


class FactsOfCore(Said):
    """A core: its fastest clock, its capacity beside the others', its governor."""

    core: Count
    max_khz: int | None
    capacity: int | None
    governor: str


class FactsOfBattery(Said):
    """A battery: percent; whether it is charging, and degrees Celsius, None where it does not tell."""

    percent: float
    charging: bool | None
    temp_c: float | None


class Facts(Said):
    """What the laptop relies on in what a device says of itself."""

    machine: str
    os: str
    processor: str
    board: str
    memory_kib: Count | None
    free_kib: Count | None
    clock: Count
    boot_id: str | None
    python: str
    model: str | None
    features: str | None
    emulated: str | None
    temp_c: float | None
    battery: FactsOfBattery | None
    throttled: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]+$")] | None
    load: Annotated[str, Field(pattern=r"^(\d+\.\d+( .*)?)?$")]
    pinning: bool
    cores: list[FactsOfCore]


class Look(Said):
    """What the doctor sees of a device: as whom, the private folder's mode, whether programs may be started in it.

    `bits` are those of the device's programs, `busy` other processes with the percent of a core that they take.
    """

    user: str
    mode: str
    runs: bool
    bits: Literal[32, 64] | None
    busy: list[Annotated[tuple[str, Count], Field(strict=False)]]


class Unpacked(Said):
    """Whether the folder of an archive of packages is there."""

    there: bool


def line_of(request: dict[str, Any]) -> bytes:
    r"""A request as the line that a program on the device reads: JSON in UTF-8, a path's odd bytes as they are.

    Characters are not escaped: the static program takes a path as it stands.

    >>> line_of({"path": "/home/jörg"})
    b'{"path":"/home/j\xc3\xb6rg"}\n'
    """
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def parse(line: bytes, device: str) -> dict[str, Any]:
    """The JSON object in a line that came from this device.

    Raises:
        GarbledAnswerError: there is none.
    """
    text = line.decode(errors="replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise GarbledAnswerError(f"{device}: not an answer: {text[:200].rstrip()!r}")
    return answer


def read(kind: type[T], answer: dict[str, Any], device: str) -> T:
    """An answer as that kind of line.

    Raises:
        GarbledAnswerError: something is missing in it, or is no value of that kind.
    """
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GarbledAnswerError(f"{device}: not an answer: {where}: {first['msg']}: {str(answer)[:200]}") from None
