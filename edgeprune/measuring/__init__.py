"""How to measure, and what the samples say: plans, warm-up, heat, battery, statistics, flags.

Everything here is a pure function: no clock is read, no file opened, no process started, and neither torch nor tvm is
imported. The scheduler asks `blocks` for the order of launches, `warmup_decision` and `thermal_gate` for what to do
next; the report asks `cell_latency`, `paired_ratio` and `flags` what came out. Start reading with `plan`.
"""

from edgeprune.measuring.battery import LOW_BATTERY_PERCENT, battery_suffices
from edgeprune.measuring.comparison import unpaired_ratio
from edgeprune.measuring.flags import FLAG_MEANINGS, flags
from edgeprune.measuring.plan import PRESETS, MeasurePlan, Step, blocks, group_size, plan
from edgeprune.measuring.speedup import realised, theoretical_speedup_filters, theoretical_speedup_macs
from edgeprune.measuring.statistics import (
    LatencySummary,
    RatioSummary,
    Verdict,
    cell_latency,
    drift,
    median,
    outliers,
    p90,
    paired_ratio,
    per_call_ns,
    timed,
    verdict,
)
from edgeprune.measuring.steadiness import WarmupDecision, is_steady, warmup_decision
from edgeprune.measuring.thermal import GateDecision, thermal_gate, throttled_window

__all__ = [
    "FLAG_MEANINGS",
    "LOW_BATTERY_PERCENT",
    "PRESETS",
    "GateDecision",
    "LatencySummary",
    "MeasurePlan",
    "RatioSummary",
    "Step",
    "Verdict",
    "WarmupDecision",
    "battery_suffices",
    "blocks",
    "cell_latency",
    "drift",
    "flags",
    "group_size",
    "is_steady",
    "median",
    "outliers",
    "p90",
    "paired_ratio",
    "per_call_ns",
    "plan",
    "realised",
    "theoretical_speedup_filters",
    "theoretical_speedup_macs",
    "thermal_gate",
    "throttled_window",
    "timed",
    "unpaired_ratio",
    "verdict",
    "warmup_decision",
]
