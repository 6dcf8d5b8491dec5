"""Kills `edgenas run` with SIGKILL in each of its stages, starts it again, and says what that cost.

Beside it a run that nobody kills starts from the same measurements: the latency table and the number
of steps that the CPU seconds were worth, because no two measurements of anything agree. Both must end
with the same files, the same weights and the same proposals, and nothing that was finished before a
kill may be done again.

    python bench/kill_resume.py [--quick] [--json OUT] [--seeds N] [--data D] [--device ID]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "cifar10_small.npz"
STAGES = ("profile", "train", "search", "final", "quantize", "validate")
QUICK = ("--train-seconds", "20", "--final-seconds", "10", "--evaluations", "40")
FULL = ("--train-seconds", "60", "--final-seconds", "40", "--evaluations", "100")
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Place:
    """A workspace and the one run in it."""

    root: Path
    name: str

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def work(self) -> Path:
        return self.run / "work"

    def table(self) -> Path:
        return next((self.root / "latency_tables").glob("*.sqlite"), self.root / "none.sqlite")

    def finished(self, stage: str) -> bool:
        return (self.run / ".stages" / f"{stage}.json").exists()


@dataclass
class Kill:
    """One kill: whether it hit its stage, and what was finished before it."""

    stage: str
    hit: bool
    finished: Counter[str]


@dataclass
class Killed:
    """A run that was killed in some stages and then ended."""

    kills: list[Kill] = field(default_factory=list)
    exit_code: int = 0
    repeated: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def killed_run(
    command: list[str],
    place: Place,
    stages: tuple[str, ...],
) -> Killed:
    """Runs ``command`` in a workspace, killed once in each of ``stages``, then to its end."""
    found = Killed()
    for stage in stages:
        hit = kill_in(stage, command, place)
        found.kills.append(Kill(stage, hit, Counter(done(place))))
    found.exit_code = finish(command, place)
    at_the_end = Counter(done(place))
    for kill in found.kills:
        found.lost += [f"{kill.stage}: {one}" for one in kill.finished - at_the_end]
    found.repeated = [one for one, times in at_the_end.items() if times > 1]
    return found


def kill_in(stage: str, command: list[str], place: Place) -> bool:
    """Starts the run and kills it as soon as ``stage`` has stored something; False if it was too quick."""
    with (place.root / "killed.log").open("ab") as log:
        # Its agents end by themselves: their stdin closes with it.
        process = subprocess.Popen(command, cwd=place.root, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None and not begun(stage, place):
            if time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"the stage {stage} did not begin; see {log.name}")
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL and not _over(stage, place)


def finish(command: list[str], place: Place) -> int:
    """Runs ``command`` to its end and returns its exit code."""
    return subprocess.run(command, cwd=place.root, check=False, capture_output=True).returncode


def begun(stage: str, place: Place) -> bool:
    """Whether a stage has stored something that a later start must not do again."""
    evidence: dict[str, Callable[[], bool]] = {
        "profile": lambda: len(_rows(place, "SELECT id FROM latencies")) >= 8,
        "train": (place.work / "supernet.pt").exists,
        "search": (place.work / "search" / "state.json").exists,
        "final": (place.work / "network.pt").exists,
        "quantize": lambda: len(_trials(place)) >= 6,
        "validate": lambda: place.finished("validate"),
    }
    return evidence[stage]()


def _over(stage: str, place: Place) -> bool:
    return place.finished("validate-int8" if stage == "validate" else stage)


def done(place: Place) -> list[str]:
    """Everything that is measured, trained or scored, by what it is: twice in the list, twice done."""
    passes = _rows(place, "SELECT model_sha256, fingerprint, threads, pass FROM latencies WHERE pass > 0")
    traces = _rows(place, "SELECT model_sha256, fingerprint, threads FROM traces WHERE runs > 1")
    first = _rows(place, "SELECT model_sha256, fingerprint, threads FROM latencies WHERE pass = 0")
    scores = _lines(place.work / "search" / "scores.jsonl")
    stages = sorted((place.run / ".stages").glob("*.json"))
    return [
        *(f"latency {row}" for row in (*passes, *first)),
        *(f"trace {row}" for row in traces),
        *(f"score {line['source']} {line['network']}" for line in scores),
        *(f"trial {line['key']}" for line in _trials(place)),
        *(f"stage {path.stem} {path.stat().st_mtime_ns}" for path in stages),
    ]


def _rows(place: Place, query: str) -> list[tuple[Any, ...]]:
    try:
        connection = sqlite3.connect(f"file:{place.table()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return []
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # it is being made
        return []
    finally:
        connection.close()


def _trials(place: Place) -> list[dict[str, Any]]:
    return _lines(place.work / "model.trials" / "trials.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; the end of one that a kill cut off is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def begin_alike(killed: Place, place: Place) -> None:
    """Gives another workspace what the killed run measured: its table, what that said and the steps."""
    place.work.mkdir(parents=True)
    (place.root / "latency_tables").mkdir()
    with (
        sqlite3.connect(killed.table()) as source,
        sqlite3.connect(place.root / "latency_tables" / killed.table().name) as target,
    ):
        source.backup(target)
    (place.run / ".stages").mkdir()
    for name in ("profile.json", ".stages/profile.json"):
        shutil.copyfile(killed.run / name, place.run / name)
    for path in (*killed.work.rglob("*.steps.json"), *killed.work.glob("*.pool.json")):
        copied = place.work / path.relative_to(killed.work)
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copied)


def differences(one: Place, other: Place) -> list[str]:
    """What two runs did not end alike with; empty if all is the same."""
    found = [f"file {path}" for path in sorted(files(one) ^ files(other))]
    models = [(place.run / "model-fp32.onnx").read_bytes() for place in (one, other)]
    return [
        *found,
        *outcome_differences(one, other),
        *(["model-fp32.onnx"] if models[0] != models[1] else []),
    ]


def outcome_differences(one: Place, other: Place) -> list[str]:
    """What of the search's proposals and scores and of the trained weights differs."""
    import torch

    ends = [
        json.loads((place.work / "search" / "state.json").read_text(encoding="utf-8"))
        for place in (one, other)
    ]
    found = [
        f"search {key}" for key in ("genomes", "objectives", "violations") if ends[0][key] != ends[1][key]
    ]
    for path in sorted(one.work.rglob("*.pt")):
        twin = other.work / path.relative_to(one.work)
        if not twin.exists():  # a difference of the files
            continue
        left, right = (torch.load(file, weights_only=True)["module"] for file in (path, twin))
        if any(not torch.equal(left[key], right[key]) for key in left.keys() | right.keys()):
            found.append(f"weights {path.relative_to(one.work)}")
    return found


def files(place: Place) -> set[str]:
    """Every file of a run by its path."""
    return {str(path.relative_to(place.run)) for path in place.run.rglob("*") if path.is_file()}


def run_command(data: str, device: str, latency_ms: float, name: str, *options: str) -> list[str]:
    """The command line of a run."""
    words = ["run", "--device", device, "--latency-ms", f"{latency_ms:g}", "--data", data, "--name", name]
    return [sys.executable, "-m", "edgenas", *words, *options]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the training")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "kill_resume.json")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="local")
    parser.add_argument("--latency-ms", type=float, default=1.0)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory(prefix="edgenas-kill-") as folder:
            rows.append(_seed(arguments, seed, Path(folder)))
    _show(rows)
    sys.path.insert(0, str(Path(__file__).parent))
    from provenance import provenance

    result = {"environment": provenance("torch", "onnxruntime"), "options": _options(arguments), "rows": rows}
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1, default=str) + "\n")
    return 1 if any(row["differences"] or row["repeated"] or row["lost"] for row in rows) else 0


def _options(arguments: argparse.Namespace) -> list[str]:
    return [*(QUICK if arguments.quick else FULL), "--profile-time-limit", "60s"]


def _seed(arguments: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    options = [*_options(arguments), "--seed", str(seed)]
    command = run_command(
        str(arguments.data.resolve()), arguments.device, arguments.latency_ms, "kill", *options
    )
    killed, whole = (Place(folder / name, "kill") for name in ("killed", "whole"))
    for place in (killed, whole):
        place.root.mkdir()
    start = time.monotonic()
    found = killed_run(command, killed, STAGES)
    killed_s = time.monotonic() - start
    start = time.monotonic()
    begin_alike(killed, whole)
    whole_code = finish(command, whole)
    verdict = json.loads((killed.run / "result.json").read_text())
    return {
        "seed": seed,
        "hit": [kill.stage for kill in found.kills if kill.hit],
        "finished_before": {kill.stage: sum(kill.finished.values()) for kill in found.kills},
        "finished": len(done(killed)),
        "files": len(files(killed)),
        "proposals": len(_lines(killed.work / "search" / "scores.jsonl")),
        "repeated": found.repeated,
        "lost": found.lost,
        "differences": differences(killed, whole),
        "exit_codes": [found.exit_code, whole_code],
        "verdict": verdict["verdict"],
        "seconds": [round(killed_s), round(time.monotonic() - start)],
    }


def _show(rows: list[dict[str, Any]]) -> None:
    print(f"{'seed':>4}  {'killed in':<10} {'hit':<4} {'finished before':>16}")
    for row in rows:
        for stage in STAGES:
            hit = "yes" if stage in row["hit"] else "no"
            print(f"{row['seed']:>4}  {stage:<10} {hit:<4} {row['finished_before'][stage]:>16}")
        print(
            f"      ended: {row['finished']} measurements, scores and stages finished, "
            f"{len(row['repeated'])} done twice, {len(row['lost'])} lost; {row['files']} files, "
            f"{row['proposals']} proposals; beside the run that was left alone: "
            f"{'nothing differs' if not row['differences'] else ', '.join(row['differences'])}; "
            f"exit codes {row['exit_codes']}, verdict {row['verdict']}, {row['seconds']} s"
        )


if __name__ == "__main__":
    raise SystemExit(main())
