"""What a device is, and what examining it found."""

from __future__ import annotations

import hashlib
from typing import Literal

from edgenas.records.base import Record


class Environment(Record):
    """Where a measurement was made, as the agent read it on the device.

    ``throttled``, ``under_voltage`` and whether either happened ``_before``, since the device was
    started, are None where it does not tell. ``supported_ir_version`` and
    ``supported_opset`` are what its runtime accepts at most, ``float_type`` is what it computes float
    models in. ``measuring_version`` counts the ways in which agents have measured: what one of them
    found is never mixed with what another did.
    """

    architecture: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    operating_system: str
    python_version: str
    runtime: str
    runtime_version: str
    supported_ir_version: int
    supported_opset: int
    virtual_clock: bool = False
    float_type: str = "f32"
    measuring_version: int = 1
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    under_voltage: bool | None = None
    throttled_before: bool | None = None
    under_voltage_before: bool | None = None
    load_1m: float | None = None
    free_memory_bytes: int | None = None
    unix_time_s: float | None = None

    def fingerprint(self) -> str:
        """Hash of what latency depends on and what does not change from minute to minute."""
        stable = (
            self.architecture, self.cpu_model, self.cpu_features, self.cores,
            self.runtime, self.runtime_version, self.virtual_clock,
            *(() if self.float_type == "f32" else (self.float_type,)),
            *(() if self.measuring_version == 1 else (self.measuring_version,)),
        )  # fmt: skip
        return hashlib.sha256(repr(stable).encode()).hexdigest()[:16]


class DeviceSummary(Record):
    """One line of ``device list``."""

    id: str
    description: str
    connection: str
    runtime: str
    host: str | None
    virtual: bool


class DeviceSetup(Record):
    """What ``device setup`` installed, or the folder that it emptied."""

    device: str
    runtime: str | None = None
    runtime_version: str | None = None
    removed: str | None = None


class DeviceRunning(Record):
    """Whether a virtual board runs, and as which process."""

    device: str
    running: bool
    process: int | None = None


class DeviceFinding(Record):
    """One line of the doctor: what was looked at, what was found, what to do."""

    name: str
    value: str
    verdict: Literal["ok", "warning", "problem", "unknown"]
    advice: str = ""


class DeviceCheck(Record):
    """What ``device check`` found. ``noise_floor`` is the relative difference that two halves of
    the rounds of one model show at the 90th percentile over its probe models."""

    device: str
    environment: Environment
    findings: tuple[DeviceFinding, ...]
    noise_floor: float
