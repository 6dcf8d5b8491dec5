"""What ssh and the host add to the time that a device spends measuring, per network.

Networks of the demo's space are profiled over an sshd on loopback as `edgenas profile` does it: built,
shipped, measured in two passes, traced and stored. The time spent measuring is what the requests
`compare` and `trace` take, less one round trip each; everything else is overhead: building, hashing,
shipping, round trips, SQLite. Where this process may use two cores, the device has one and the host the
others, as two machines have; on one core (`taskset -c 1`) host and device take turns, and nothing is built
while the device measures. `--device ID` does the same on any other device, such as a virtual board
that runs.

    python bench/remote_overhead.py [--quick] [--json OUT] [--seeds N] [--device ID]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import Agent, connect
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import Target, plan_space
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
SPACE = "mobilenetv3-demo"
NETWORKS, QUICK_NETWORKS = 40, 10
ROUND_TRIPS = 20
CORES = os.sched_getaffinity(0)


class Clock:
    """Times the requests of one agent by method."""

    def __init__(self, agent: Agent) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._ask = agent._conversation.ask
        agent._conversation.ask = self._timed  # type: ignore[method-assign]

    def _timed(self, method: str, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._ask(method, *arguments, **named)
        finally:
            self.seconds.setdefault(method, []).append(time.perf_counter() - started)


@contextlib.contextmanager
def device(name: str | None, folder: Path) -> Iterator[DeviceProfile]:
    """The profile of a device, or of a fresh sshd on loopback."""
    if name is not None:
        yield load_profile(name, Workspace(folder))
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from loopback_sshd import Server

    (folder / "sshd").mkdir()
    with on_cores({max(CORES)}):
        server = Server(folder / "sshd")
    try:
        yield server.profile
    finally:
        server.stop()


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """This process, and what it starts inside the block, on some of the cores that it may use."""
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def measure(name: str | None, folder: Path, *, count: int, seed: int) -> dict[str, Any]:
    with device(name, folder) as profile, on_cores(CORES - {max(CORES)} or CORES):
        started = time.perf_counter()
        with connect(profile) as agent:
            connected_s = time.perf_counter() - started
            round_trip_s = _round_trip(agent)
            clock, target = Clock(agent), Target.of(agent.environment, profile.int8_scheme)
            plan = plan_space(get_space(SPACE), "fp32", target, seed=seed)[:count]
            with LatencyTable.open(folder / "table.sqlite", create=True, device=profile.id) as table:
                table.begin_run("bench remote_overhead")
                measuring = Measuring(agent, table, 1, None, np.random.default_rng(seed))
                started = time.perf_counter()
                measuring.measure(plan)
                elapsed_s = time.perf_counter() - started
            environment = agent.environment.to_dict()
    asked = [seconds for method in ("compare", "trace") for seconds in clock.seconds[method]]
    measuring_s = sum(asked) - len(asked) * round_trip_s
    return {
        "device": profile.id,
        "networks": len(plan),
        "connect_s": connected_s,
        "round_trip_ms": 1e3 * round_trip_s,
        "elapsed_s": elapsed_s,
        "measuring_s": measuring_s,
        "overhead_s": elapsed_s - measuring_s,
        "overhead_per_network_ms": 1e3 * (elapsed_s - measuring_s) / len(plan),
        "overhead_ratio": (elapsed_s - measuring_s) / measuring_s,
        "requests": {method: len(seconds) for method, seconds in clock.seconds.items()},
        "request_seconds": clock.seconds,
        "environment": environment,
    }


def _round_trip(agent: Agent) -> float:
    """Median seconds of the smallest request."""
    seconds = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        agent._conversation.ask("have", list, contents=[])
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def show(found: dict[str, Any]) -> None:
    print(f"{found['networks']} networks of {SPACE} on {found['device']} over ssh")
    print(f"connecting          {found['connect_s']:9.2f} s, a round trip {found['round_trip_ms']:.2f} ms")
    print(f"measuring           {found['measuring_s']:9.2f} s")
    print(
        f"everything else     {found['overhead_s']:9.2f} s, {found['overhead_per_network_ms']:.1f} ms a network"
    )
    print(f"overhead            {found['overhead_ratio']:9.1%} of the time spent measuring (at most 10 %)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NETWORKS} networks")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "remote_overhead.json")
    parser.add_argument("--seeds", type=int, default=1, help="the seed of the plan is one less")
    parser.add_argument("--device", help="a device instead of an sshd on loopback")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgenas-bench-") as folder:
        found = measure(
            arguments.device,
            Path(folder),
            count=QUICK_NETWORKS if arguments.quick else NETWORKS,
            seed=arguments.seeds - 1,
        )
    environment = provenance("numpy", "onnx", "onnxruntime")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps(
            {
                "bench": "remote_overhead",
                "environment": environment,
                "summary": [{key: one for key, one in found.items() if not isinstance(one, dict)}],
                "found": found,
            },
            indent=1,
        )
    )
    show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
