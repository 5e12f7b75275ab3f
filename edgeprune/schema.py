"""The records of a run: what the journal holds, and the columns of the CSV files made from it.

Start with `Launch`: it is one fresh process on a device, with every sample it took. `Network` says what was built,
`CellEnd` that a cell is finished and how. Each record is frozen, checked when read, and one line of `journal.jsonl`.
Units stand in the names: `_ns`, `_bytes`, `_c` (degrees Celsius), `_hz`. What could not be read is None, never 0.

History of the schema:
    1  (0.1.0)  first version
    2  (0.1.0)  launches that only compare numbers (purpose "check"), on emulated devices that were reached
    3  (0.1.0)  cells on simulated accelerators: accuracy of the int8 network, what one inference takes (`Accelerated`)
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

SCHEMA_VERSION = 3

EMULATED_PREFIX = "emulated-"
SIMULATED_PREFIX = "fpga-sim-"

Variant = Literal["dense", "masked", "shrunk"]
Status = Literal["ok", "invalid", "failed", "skipped"]


class Record(BaseModel):
    """A frozen record that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkKey(Record):
    """Which network: a model trained on a dataset, pruned by a recipe, in one of its three forms.

    A dense network belongs to no recipe: its `method` is "" and its `pruning_ratio` None. That is None too where the
    recipe has a ratio for each layer: `method` says them.
    """

    model: str
    dataset: str
    method: str
    pruning_ratio: float | None = Field(default=None, ge=0.0, lt=1.0)
    seed: int
    variant: Variant

    @property
    def network_id(self) -> str:
        """Hexadecimal hash of the fields, 12 characters."""
        return _short_hash(self.model_dump())


class CellKey(Record):
    """Which measurement: a network, on a runtime, on a device, at a number of threads."""

    network: NetworkKey
    runtime: str
    target: str
    device: str
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    precision: Literal["fp32", "int8"] = "fp32"

    @property
    def is_emulated(self) -> bool:
        """Whether the device is an emulated one: instructions are counted there, and nothing is timed."""
        return self.device.startswith(EMULATED_PREFIX)

    @property
    def is_simulated(self) -> bool:
        """Whether the device is a simulated accelerator: cycles are counted there, and nothing is timed."""
        return self.device.startswith(SIMULATED_PREFIX)

    @property
    def cell_id(self) -> str:
        """Hexadecimal hash of the fields, 12 characters."""
        return _short_hash(self.model_dump())


class Session(Record):
    """One invocation of `edgeprune run` on this results folder; launches name it."""

    kind: Literal["session"] = "session"
    session_id: str
    started_at: str
    command: list[str]
    versions: dict[str, str]
    host: dict[str, Any]


class DeviceFacts(Record):
    """What a device said of itself at the start of a session."""

    kind: Literal["device"] = "device"
    session_id: str
    device: str
    facts: dict[str, Any]


class LayerRow(Record):
    """One convolution or linear layer of a network."""

    layer: str
    op: str
    in_channels: int
    out_channels: int
    params: int
    macs: int


class Network(Record):
    """What was built for one network: its sizes, counts and accuracy.

    `made_from` is the hash of all that made it; two networks of one key with different hashes are not to be compared.
    """

    kind: Literal["network"] = "network"
    session_id: str
    key: NetworkKey
    params: int
    nonzero_params: int
    macs: int
    uncounted_ops: dict[str, int]
    accuracy: float = Field(ge=0.0, le=1.0)
    filters: int
    pruned_filters: int
    onnx_bytes: int
    compressed_bytes: int
    parity_rel: float
    layers: list[LayerRow]
    notes: list[str] = []
    made_from: str


class Reading(Record):
    """What the agent read of the device during a launch, about once a second."""

    t_ns: int
    temp_c: float | None = None
    clock_hz: list[int] | None = None
    throttled: bool | None = None


class Launch(Record):
    """One fresh process on a device.

    All times are wall times in the order they were taken: `first_calls_ns` of the very first calls, one by one,
    `warmup_ns` of groups of `warmup_group` calls, `samples_ns` of groups of `group` calls.
    A latency launch has samples; a memory launch has `peak_rss_bytes` and no samples; a check has neither: its device
    is emulated, so that it compared numbers and nothing else.
    `unit` names what was run back to back (a masked/shrunk pair, or a dense network alone): two launches are paired
    when session, block and unit are equal.
    """

    kind: Literal["launch"] = "launch"
    session_id: str
    cell_id: str
    purpose: Literal["latency", "memory", "check"]
    block: int
    unit: str
    order: int
    started_at: str
    cores: list[int] | None
    first_calls_ns: list[int] = []
    warmup_group: int = Field(default=1, ge=1)
    warmup_ns: list[int]
    group: int = Field(ge=1)
    steady: bool | None
    samples_ns: list[int]
    parity_rel: float | None
    peak_rss_bytes: int | None
    readings: list[Reading] = []
    thermal_wait_s: float = 0.0


class AcceleratedLayer(Record):
    """What one layer of a network takes on an accelerator.

    `cycles` are those from the end of the layers before to its own; `layer` names the ONNX nodes that it is.
    """

    layer: str
    op: str
    in_channels: int
    out_channels: int
    rows: int
    columns: int
    macs: int
    cycles: int
    stall_cycles: int
    bytes_moved: int


class Accelerated(Record):
    """What one inference takes on an accelerator, the host's part apart.

    `stalls` are the cycles in which its array stood still, by what it waited for. `macs` are the multiply-adds of the
    network that it does, on `multipliers`; `host_nodes` and `host_macs` are left to the host, of `nodes` and
    `host_macs + macs` in all.
    """

    multipliers: int
    macs: int
    busy_cycles: int
    bytes_read: int
    bytes_written: int
    stalls: dict[str, int]
    nodes: int
    host_nodes: list[str]
    host_macs: int
    parity_rel: float
    layers: list[AcceleratedLayer]


class CellEnd(Record):
    """A cell is finished: measured, or given up with a reason.

    `accuracy` is that of the network as it runs there, where it is not the float32 one.
    """

    kind: Literal["cell"] = "cell"
    session_id: str
    cell_id: str
    key: CellKey
    status: Status
    reason: str = ""
    artifact_bytes: int | None = None
    weights_bytes: int | None = None
    arena_bytes: int | None = None
    instructions: int | None = None
    cycles: int | None = None
    accuracy: float | None = None
    accelerated: Accelerated | None = None

    @property
    def array_utilisation(self) -> float | None:
        """The network's multiply-adds a cycle over the array's multipliers."""
        if self.accelerated is None or not self.cycles:
            return None
        return self.accelerated.macs / (self.accelerated.multipliers * self.cycles)


JournalRecord = Annotated[Session | DeviceFacts | Network | Launch | CellEnd, Field(discriminator="kind")]
RECORDS: TypeAdapter[Session | DeviceFacts | Network | Launch | CellEnd] = TypeAdapter(JournalRecord)

CELL_COLUMNS = (
    "run_id cell_id model dataset method pruning_ratio seed variant runtime target device threads batch precision "
    "status reason params nonzero_params macs accuracy onnx_bytes compressed_bytes artifact_bytes parity_rel "
    "latency_ns_median latency_ns_ci_low latency_ns_ci_high latency_ns_p90 launches samples peak_rss_bytes "
    "weights_bytes arena_bytes instructions cycles array_utilisation bytes_moved stall_cycles host_macs_share "
    "temp_c_start temp_c_end throttled flags"
).split()

PAIR_COLUMNS = (
    "model dataset method pruning_ratio seed runtime device threads batch precision theoretical_speedup_filters "
    "theoretical_speedup_macs real_speedup real_speedup_ci_low real_speedup_ci_high realised verdict"
).split()

LAYER_COLUMNS = (
    "model dataset method pruning_ratio seed variant layer op in_channels out_channels params macs"
).split()

CYCLE_COLUMNS = (
    "model dataset method pruning_ratio seed variant device layer op in_channels out_channels rows columns macs cycles "
    "stall_cycles bytes_moved"
).split()


def _short_hash(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
