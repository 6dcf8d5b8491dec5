"""Kills `edgenas profile` with SIGKILL at random moments and says what each kill cost.

After every kill the table must verify, hold every row that it held before, and no agent may be left
running. When the profile has at last come to its end, what was measured more often than its rows say
was repeated: that may be, for each kill, the one measurement in flight (a batch of networks side by
side, or one trace).

    python bench/kill_profile.py [--quick] [--json OUT] [--seeds N] [--device ID] [--space S]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from edgenas.latency_tables.integrity import verify
from edgenas.latency_tables.schema import CHECKED_TABLES

LONGEST_S = 4.0  # after the first measurement was asked for, that a kill comes
EARLY = 0.1  # share of the kills that come while the profile starts
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 900.0
AGENT_TIMEOUT_S = 10.0

# The command line with a log of every measurement that it asks the device for.
WATCHED = """
import json, os, sys
from edgenas.measuring.agent import Agent
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
compare, trace = Agent.compare, Agent.trace

def note(kind, models):
    os.write(log, (json.dumps([kind, list(models)]) + "\\n").encode())

def watched_compare(self, models, **options):
    note("latencies", models)
    yield from compare(self, models, **options)

def watched_trace(self, model, **options):
    note("traces", [model])
    return trace(self, model, **options)

Agent.compare, Agent.trace = watched_compare, watched_trace
from edgenas.cli import main
main()
"""


@dataclass
class Killed:
    """A profile that was killed again and again and then came to its end."""

    root: Path
    kills: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: dict[str, set[str]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 kills instead of 50")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="local")
    parser.add_argument("--space", default="mobilenetv3-demo")
    options = parser.parse_args()
    kills = 8 if options.quick else 50
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(trial(Path(folder), options.device, options.space, kills, seed))
        show(rows[-1])
    content = {
        "environment": provenance("numpy", "onnxruntime"),
        "summary": [{k: v for k, v in row.items() if k != "samples"} for row in rows],
        "samples": [row["samples"] for row in rows],
    }
    if options.json:
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(row["verdict"] == "pass" for row in rows) else 1


def trial(root: Path, device: str, space: str, kills: int, seed: int) -> dict[str, Any]:
    """One table: killed ``kills`` times, then left alone until it is complete."""
    killed, rng = Killed(root), np.random.default_rng(seed)
    arguments = ["profile", "--device", device, "--space", space, "--threads", "1", "--quiet"]
    arguments += ["--precision", "fp32"]  # enough to be killed in; all of it would only take longer
    for number in range(kills):
        early, moment_s = rng.random() < EARLY, float(rng.uniform(0.0, LONGEST_S))
        kill(killed, number, arguments, moment_s, early=early)
        examine(killed, device)
    started = time.monotonic()
    end = start(killed.root, kills, arguments)
    if end.wait(timeout=END_TIMEOUT_S) != 0:
        killed.problems.append(f"the last run ended with code {end.returncode}")
    examine(killed, device)
    repeated, beyond = repetitions(killed, device)
    problems = killed.problems + [f"repeated without need: {name}" for name in beyond]
    return {
        "device": device,
        "space": space,
        "seed": seed,
        "kills": kills,
        "in_flight": sum(one["in_flight"] is not None for one in killed.kills),
        "rows": sum(map(len, killed.rows.values())),
        "measurements": sum(len(calls(killed.root, number)) for number in range(kills + 1)),
        "repeated_measurements": repeated,
        "lost_rows": sum(one["lost_rows"] for one in killed.kills),
        "problems": len(problems),
        "last_run_s": round(time.monotonic() - started, 1),
        "verdict": "fail" if problems else "pass",
        "samples": {"kills": killed.kills, "problems": problems},
    }


def start(root: Path, number: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "EDGENAS_CACHE": str(root / "cache")}
    command = [sys.executable, "-c", WATCHED, str(root / f"{number}.log"), *arguments]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)


def kill(killed: Killed, number: int, arguments: list[str], moment_s: float, *, early: bool) -> None:
    """Starts the profile, kills its process (not the agent's) and waits for the agent to go."""
    process = start(killed.root, number, arguments)
    if not early:
        wait_for_measuring(killed.root, number, process)
    ended = False
    try:
        process.wait(timeout=moment_s)
        ended = True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    asked = calls(killed.root, number)
    killed.kills.append(
        {
            "moment_s": round(moment_s, 3),
            "after": "start" if early else "the first measurement",
            "ended_before": ended,
            "measurements": len(asked),
            "in_flight": asked[-1][0] if asked and not ended else None,
            "agent_gone_s": round(wait_for_agents(killed), 2),
        }
    )


def wait_for_measuring(root: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until the device was asked for something, or there was nothing to ask for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not calls(root, number) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_for_agents(killed: Killed) -> float:
    """Seconds until no agent of this workspace runs any more."""
    started = time.monotonic()
    mine = str(killed.root / "cache").encode()
    while any(mine in command for command in command_lines()):
        if time.monotonic() - started > AGENT_TIMEOUT_S:
            killed.problems.append(f"an agent ran on after kill {len(killed.kills)}")
            break
        time.sleep(0.05)
    return time.monotonic() - started


def command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:  # it ended meanwhile
            continue
    return found


def examine(killed: Killed, device: str) -> None:
    """The table must be intact, with every row that it ever had."""
    path, last = table_of(killed.root, device), killed.kills[-1]
    last["lost_rows"] = 0
    if not path.exists():  # killed before anything was written
        last["rows"] = 0
        return
    found = verify(path, device=device)
    killed.problems += [f"after kill {len(killed.kills)}: {problem}" for problem in found.problems]
    rows = read_rows(path)
    last["rows"] = sum(map(len, rows.values()))
    last["lost_rows"] = sum(len(killed.rows.get(name, set()) - ids) for name, ids in rows.items())
    if last["lost_rows"]:
        killed.problems.append(f"{last['lost_rows']} rows were lost by kill {len(killed.kills)}")
    killed.rows = rows


def table_of(root: Path, device: str) -> Path:
    return root / "latency_tables" / f"{device}.sqlite"


def read_rows(path: Path) -> dict[str, set[str]]:
    """The keys of all rows by table."""
    connection = sqlite3.connect(path)
    try:
        return {
            name: {row[0] for row in connection.execute(f"SELECT * FROM {name}")} for name in CHECKED_TABLES
        }
    finally:
        connection.close()


def calls(root: Path, number: int) -> list[tuple[str, list[str]]]:
    """What one process asked the device for, in order: kind and models."""
    log = root / f"{number}.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(kind, models) for kind, models in map(json.loads, lines)]


def repetitions(killed: Killed, device: str) -> tuple[int, list[str]]:
    """How many measurements in flight were made again, and models repeated beyond those."""
    connection = sqlite3.connect(table_of(killed.root, device))
    repeated, beyond = 0, []
    for kind in ("latencies", "traces"):
        asked, allowed = Counter[str](), Counter[str]()
        for number, one in enumerate([*killed.kills, {"in_flight": None}]):
            made = calls(killed.root, number)
            for name, models in made:
                asked.update(models if name == kind else ())
            if one["in_flight"] == kind:
                allowed.update(made[-1][1])
        stored = Counter(row[0] for row in connection.execute(f"SELECT model_sha256 FROM {kind}"))
        excess = asked - stored
        beyond += sorted((excess - allowed).keys())
        repeated += sum(
            one["in_flight"] == kind and any(excess[model] for model in calls(killed.root, number)[-1][1])
            for number, one in enumerate(killed.kills)
        )
    connection.close()
    return repeated, beyond


def show(row: dict[str, Any]) -> None:
    names = ("kills", "in_flight", "rows", "measurements", "repeated_measurements", "lost_rows", "verdict")
    print("".join(f"{name:>{len(name) + 2}}" for name in names))
    print("".join(f"{row[name]!s:>{len(name) + 2}}" for name in names))
    for problem in row["samples"]["problems"]:
        print(f"  {problem}")


if __name__ == "__main__":
    sys.exit(main())
