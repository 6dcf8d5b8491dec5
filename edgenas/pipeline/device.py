"""The stages ``device list``, ``device show`` and ``device check``."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from edgenas.device_profiles import DeviceProfile, list_profiles, load_profile
from edgenas.errors import MeasurementError
from edgenas.measuring import Agent, connect, noise_floor
from edgenas.progress import track
from edgenas.records import DeviceCheck, DeviceFinding, DeviceSummary, Environment
from edgenas.workspace import Workspace

# Below this nothing but the smallest networks can be loaded side by side.
_LITTLE_MEMORY_BYTES = 256 << 20
# Two networks that differ by less than this are what a search has to tell apart.
_GOOD_FLOOR, _POOR_FLOOR = 0.02, 0.05
_ROUNDS = 16
_CLOCKS_APART_S = 300.0


def device_list(*, workspace: Workspace | None = None) -> tuple[DeviceSummary, ...]:
    """All device profiles: built in, the user's and the workspace's.

    Raises:
        UsageError: a file among them is not a valid profile.
    """
    return tuple(
        DeviceSummary(
            id=profile.id,
            description=profile.description,
            connection=profile.connection,
            runtime=profile.runtime,
            host=profile.host,
            virtual=profile.virtual,
        )
        for profile in list_profiles(workspace or Workspace())
    )


def device_show(device: str, *, workspace: Workspace | None = None) -> DeviceProfile:
    """One device profile.

    Raises:
        UnknownNameError: there is none with this id.
        UsageError: its file is not a valid profile.
    """
    return load_profile(device, workspace or Workspace())


def device_check(
    device: str, *, threads: int | None = None, workspace: Workspace | None = None
) -> DeviceCheck:
    """Connects to a device and examines whether it is fit to measure on.

    Args:
        threads: threads of the probe models; the device's own number when omitted.

    Raises:
        UnknownNameError: there is no such profile.
        DeviceError: the device cannot be reached or cannot measure.
    """
    profile = load_profile(device, workspace or Workspace())
    with connect(profile) as agent:
        threads = threads or agent.threads
        floor = _noise_floor(agent, threads)
        # Read after the work: temperature, clock and throttling are those of a device that measures.
        environment = agent.refresh_environment()
    findings = (*_stable_findings(environment, threads), *_moving_findings(environment, profile))
    return DeviceCheck(
        device=device,
        environment=environment,
        findings=(*findings, _floor_finding(floor)),
        noise_floor=floor,
    )


def _noise_floor(agent: Agent, threads: int) -> float:
    """Repeatability of small probe models, in the same interleaved rounds as everything else.

    Raises:
        MeasurementError: the device runs none of them.
    """
    # Imported here, because listing profiles needs no onnx.
    from edgenas.pipeline.device_probes import write_probes

    measured, reasons = [], []
    with tempfile.TemporaryDirectory(prefix="edgenas-probes-") as folder, track("Measuring noise", 4) as task:
        models = [agent.ship(path) for path in write_probes(Path(folder))]
        networks = agent.compare(models, threads=threads, min_rounds=_ROUNDS, max_rounds=_ROUNDS)
        for network in networks:
            task.advance()
            if network.statistics is None:
                reasons.append(network.error or "")
            else:
                measured.append(network.statistics.rounds_ms)
    if not measured:
        raise MeasurementError(
            f"'{agent.profile.id}' runs none of the probe models: {reasons[0]}", reason=reasons[0]
        )
    return noise_floor(measured)


def _stable_findings(environment: Environment, threads: int) -> tuple[DeviceFinding, ...]:
    cores = f"{threads} of {environment.cores} cores"
    too_many = threads > environment.cores
    memory = f"{environment.memory_bytes / 2**30:.1f} GiB"
    return (
        DeviceFinding(name="processor", value=environment.cpu_model, verdict="ok"),
        DeviceFinding(name="features", value=", ".join(environment.cpu_features) or "none", verdict="ok"),
        DeviceFinding(
            name="runtime",
            value=f"{environment.runtime} {environment.runtime_version}, Python {environment.python_version}",
            verdict="ok",
        ),
        DeviceFinding(
            name="onnx",
            value=f"IR {environment.supported_ir_version}, opset {environment.supported_opset}",
            verdict="ok",
        ),
        DeviceFinding(
            name="threads",
            value=cores,
            verdict="warning" if too_many else "ok",
            advice="more threads than cores only wait for each other" if too_many else "",
        ),
        DeviceFinding(name="memory", value=memory, verdict="ok"),
    )


def _moving_findings(environment: Environment, profile: DeviceProfile) -> tuple[DeviceFinding, ...]:
    return (
        _governor(environment),
        _frequency(environment),
        _temperature(environment, profile.temperature_limit_c),
        _throttling(environment),
        _under_voltage(environment),
        _free_memory(environment),
        _load(environment),
        _date(environment),
    )


def _governor(environment: Environment) -> DeviceFinding:
    if environment.governor is None:
        return _unknown("governor")
    fixed = environment.governor == "performance"
    return DeviceFinding(
        name="governor",
        value=environment.governor,
        verdict="ok" if fixed else "warning",
        advice="" if fixed else "a fixed clock repeats better: sudo cpupower frequency-set -g performance",
    )


def _frequency(environment: Environment) -> DeviceFinding:
    if environment.virtual_clock:
        return DeviceFinding(
            name="clock",
            value="counts instructions",
            verdict="ok",
            advice="its milliseconds are virtual and never stand beside a real board's",
        )
    if environment.frequency_mhz is None:
        return _unknown("clock")
    return DeviceFinding(name="clock", value=f"{environment.frequency_mhz:.0f} MHz", verdict="ok")


def _temperature(environment: Environment, limit_c: float | None) -> DeviceFinding:
    if environment.temperature_c is None:
        return _unknown("temperature")
    hot = limit_c is not None and environment.temperature_c > limit_c
    return DeviceFinding(
        name="temperature",
        value=f"{environment.temperature_c:.0f} C" + (f" (limit {limit_c:.0f})" if limit_c else ""),
        verdict="problem" if hot else "ok",
        advice="it will be waited for before anything is measured; a fan helps" if hot else "",
    )


def _throttling(environment: Environment) -> DeviceFinding:
    return _flag(
        "throttling",
        "slowed down",
        environment.throttled,
        environment.throttled_before,
        advice="cool it, and check its power supply: vcgencmd get_throttled",
    )


def _under_voltage(environment: Environment) -> DeviceFinding:
    return _flag(
        "under-voltage",
        "too little voltage",
        environment.under_voltage,
        environment.under_voltage_before,
        advice="a stronger power supply or a shorter cable: vcgencmd get_throttled",
    )


def _flag(name: str, what: str, now: bool | None, before: bool | None, *, advice: str) -> DeviceFinding:
    """A flag of the firmware: a problem while it holds, a warning once it did since the start."""
    if now is None:
        return _unknown(name)
    if now:
        return DeviceFinding(name=name, value=f"{what} now", verdict="problem", advice=advice)
    if before:
        return DeviceFinding(
            name=name, value=f"{what} since it was started, not now", verdict="warning", advice=advice
        )
    return DeviceFinding(name=name, value="none", verdict="ok")


def _free_memory(environment: Environment) -> DeviceFinding:
    if environment.free_memory_bytes is None:
        return _unknown("free memory")
    little = environment.free_memory_bytes < _LITTLE_MEMORY_BYTES
    return DeviceFinding(
        name="free memory",
        value=f"{environment.free_memory_bytes / 2**20:.0f} MiB",
        verdict="warning" if little else "ok",
        advice="fewer models are measured side by side, and large ones fail" if little else "",
    )


def _load(environment: Environment) -> DeviceFinding:
    if environment.load_1m is None:
        return _unknown("load")
    # The probes themselves keep one core busy for a part of the minute.
    busy = environment.load_1m > max(1.0, 0.5 * environment.cores)
    return DeviceFinding(
        name="load",
        value=f"{environment.load_1m:.2f} over {environment.cores} cores",
        verdict="warning" if busy else "ok",
        advice="other work on the device blurs every latency; stop it" if busy else "",
    )


def _date(environment: Environment) -> DeviceFinding:
    if environment.unix_time_s is None:
        return _unknown("date")
    apart_s = environment.unix_time_s - time.time()
    wrong = abs(apart_s) > _CLOCKS_APART_S
    date = datetime.fromtimestamp(environment.unix_time_s, UTC).isoformat(" ", "minutes")[:16]
    return DeviceFinding(
        name="date",
        value=date + (f", {abs(apart_s):.0f} s {'ahead' if apart_s > 0 else 'behind'}" if wrong else ""),
        verdict="warning" if wrong else "ok",
        advice="latencies are right, but downloads fail: sudo timedatectl set-ntp true" if wrong else "",
    )


def _floor_finding(floor: float) -> DeviceFinding:
    value = f"{100 * floor:.1f} %"
    if floor <= _GOOD_FLOOR:
        return DeviceFinding(name="noise floor", value=value, verdict="ok")
    return DeviceFinding(
        name="noise floor",
        value=value,
        verdict="warning" if floor <= _POOR_FLOOR else "problem",
        advice="differences below this are noise; measure when the device is idle",
    )


def _unknown(name: str) -> DeviceFinding:
    return DeviceFinding(name=name, value="the device does not tell", verdict="unknown")
