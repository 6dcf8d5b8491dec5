"""What the gate allows: options of the command line over ``[check]`` of ``edgenas.toml`` over defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import msgspec

from edgenas.errors import UsageError
from edgenas.pipeline.ab_test import Statistic
from edgenas.records import GateVerdict
from edgenas.workspace import CONFIGURATION_FILE, Workspace

LatencySourceName = Literal["measured", "virtual", "predicted"]
Tolerable = Literal["inconclusive", "incomparable"]

# A stopwatch on a shared machine repeats to half a percent, an instruction count to .03 %, and a
# prediction is the same every time.
SLOWER: dict[LatencySourceName, float] = {"measured": 0.03, "virtual": 0.003, "predicted": 0.01}
FLOOR_MS: dict[LatencySourceName, float] = {"measured": 0.005, "virtual": 0.0, "predicted": 0.0}


class Limits(TypedDict, total=False):
    """The limits as options; None is the default."""

    latency_ms: float | None
    latency_statistic: Statistic | None
    size_mb: float | None
    memory_mb: float | None
    min_accuracy: float | None
    max_slower: float | None
    max_larger: float | None
    max_more_memory: float | None
    max_drop: float | None


class Allowance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change against the baseline, and what may never be passed. Shares are of the baseline.

    ``max_slower`` is None where the way of knowing latency decides: 3 % measured, 0.3 % counted on a
    virtual board, 1 % predicted. ``latency_statistic`` is what ``latency_ms`` limits; a quantile is then
    held to the baseline's, too, beside the repeatable latency.
    """

    max_slower: float | None = None
    max_larger: float = 0.01
    max_more_memory: float = 0.10
    max_drop: float = 0.01
    latency_ms: float | None = None
    latency_statistic: Statistic = "repeatable"
    size_mb: float | None = None
    memory_mb: float | None = None
    min_accuracy: float | None = None
    tolerate: tuple[Tolerable, ...] = ()

    def slower(self, source: LatencySourceName) -> float:
        """The share by which a model may become slower."""
        return SLOWER[source] if self.max_slower is None else self.max_slower

    def accepts(self, verdict: GateVerdict) -> bool:
        """Whether the gate opens with this verdict."""
        return verdict == "pass" or verdict in self.tolerate


def require_knowable(allowance: Allowance, source: LatencySourceName) -> None:
    """Refuses limits of what this way of knowing latency cannot tell.

    Raises:
        UsageError: quantiles where nothing is timed, or memory where nothing runs.
    """
    tail = allowance.latency_statistic != "repeatable"
    if source == "predicted" and (tail or allowance.memory_mb is not None):
        raise UsageError(
            "a prediction knows neither memory nor quantiles",
            hint="leave --memory-mb and --latency-statistic out, or measure: --device ID",
        )
    if source == "virtual" and tail:
        raise UsageError(
            "a virtual board counts instructions, and a count has no quantiles",
            hint="leave --latency-statistic out, or measure on a real device",
        )


def allowance_from(
    limits: Mapping[str, Any], tolerate: tuple[Tolerable, ...], workspace: Workspace
) -> Allowance:
    """Options over the workspace's ``[check]`` over the defaults.

    Raises:
        UsageError: ``edgenas.toml`` names a limit that does not exist, or gives it a wrong value.
    """
    configured = workspace.configuration().get("check", {})
    given = {name: value for name, value in limits.items() if value is not None}
    if tolerate:
        given["tolerate"] = tolerate
    try:
        allowance = msgspec.convert({**configured, **given}, Allowance)
    except (msgspec.ValidationError, TypeError) as error:
        raise UsageError(
            f"[check] of {CONFIGURATION_FILE} or an option is wrong: {error}",
            hint=f"known: {', '.join(Allowance.__struct_fields__)}",
        ) from error
    for name in ("max_slower", "max_larger", "max_more_memory", "max_drop"):
        value = getattr(allowance, name)
        if value is not None and not 0.0 <= value < 10.0:
            raise UsageError(f"{name} is {value}; it is a share such as 0.03, from 0 to below 10")
    return allowance
