"""A searched network against hand-designed ones of the same measured latency, recipe and CPU time.

    python bench/hand_designed.py [--quick] [--json OUT] [--seeds N]

Every network is float, is measured in one interleaved comparison and learns from the same images.
The searched network starts from its supernet's weights. The others train from scratch, once for the
CPU seconds of its final training and once for those plus the CPU seconds that its supernet and its
search took. Killed and started again, the benchmark goes on with the cells that are not finished.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from reference_networks import FAMILIES

from edgenas.datasets import default_preprocessing, load_dataset, preprocess
from edgenas.device_profiles import load_profile
from edgenas.measuring import connect
from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.limits import networks_near
from edgenas.pipeline.profile import profile
from edgenas.search.evolution import Evolution
from edgenas.search.problem import Limit, Problem
from edgenas.search_spaces import Network, RestrictedSpace, build_onnx, get_space, macs, parameters
from edgenas.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/cifar10_small.npz"
FINALISTS = 5
TOLERANCE = 1.03  # hand-designed networks may be this much slower than the limit: widths come in steps
WIDTHS = [round(0.1 * 1.06**step, 3) for step in range(60)]


@dataclass(frozen=True)
class Settings:
    """What decides the outcome; a folder with other settings is not continued."""

    space: str
    data: str
    device: str
    latency_ms: float | None
    supernet_seconds: float
    final_seconds: float
    evaluations: int
    profile_seconds: float
    seeds: int


@dataclass(frozen=True)
class Cell:
    """One training: ``searched`` or a family, and whether the supernet's time counts."""

    network: str
    seed: int
    counted: bool = False

    @property
    def key(self) -> str:
        return f"{self.network}-{self.seed}{'-counted' if self.counted else ''}"


class Store:
    """Finished results, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        self.found = {line["key"]: line for line in map(json.loads, whole.splitlines())}

    def add(self, key: str, **values: Any) -> dict[str, Any]:
        self.found[key] = {"key": key, **values}
        with self._path.open("a") as file:
            file.write(json.dumps(self.found[key]) + "\n")
        return self.found[key]

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is stored under ``key``, else what ``work`` gives."""
        return self.found[key] if key in self.found else self.add(key, **work())


# --- latency ----------------------------------------------------------------------------------------


def measured_ms(networks: Sequence[Network], device: str, folder: Path) -> list[float]:
    """Latencies in ms of all networks from one interleaved comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    with connect(load_profile(device, Workspace(folder))) as agent:
        hashes = []
        for network in networks:
            path = folder / f"{network.fingerprint()}.onnx"
            path.write_bytes(build_onnx(network).SerializeToString())
            hashes.append(agent.ship(path))
        found = {one.model_sha256: one for one in agent.compare(hashes, threads=1)}
    failed = [str(one.error) for one in found.values() if one.statistics is None]
    if failed:
        raise SystemExit(f"a network could not be measured: {failed[0]}")
    return [found[name].statistics.latency_ms for name in hashes]


def scaled_networks(limit_ms: float | None, settings: Settings, folder: Path, classes: int) -> dict[str, Any]:
    """The limit and, for every family, the widest network within it; the default limit is ResNet-8's."""
    grid = {
        (family, network.fingerprint()): network
        for family, build in FAMILIES.items()
        for network in (build(width, 32, classes) for width in WIDTHS)
        if macs(network) < 60e6
    }
    reference = FAMILIES["resnet8"](1.0, 32, classes)
    latencies = measured_ms([reference, *grid.values()], settings.device, folder)
    limit = limit_ms or latencies[0]
    chosen: dict[str, Network] = {}
    for (family, _), network, latency in zip(grid, grid.values(), latencies[1:], strict=True):
        if latency <= TOLERANCE * limit and macs(network) > macs(chosen.get(family, network)) * 0.999:
            chosen[family] = network
    missing = sorted(set(FAMILIES) - set(chosen))
    for family in missing:
        print(f"{family}: even its narrowest network takes longer than {limit:.3f} ms", file=sys.stderr)
    return {"limit_ms": limit, "networks": {family: network.to_dict() for family, network in chosen.items()}}


# --- the searched network ---------------------------------------------------------------------------


def float_space(name: str, classes: int) -> RestrictedSpace:
    """The space without int8: every network of this comparison is float."""
    space = get_space(name, classes=classes)
    precisions = [choice.name for choice in space.choices if choice.name.endswith("precision")]
    return RestrictedSpace(space, dict.fromkeys(precisions, ("fp32",)))


def search_cell(settings: Settings, seed: int, limit_ms: float, folder: Path) -> dict[str, Any]:
    """Trains one supernet and searches it; returns the finalists, best first, and the CPU seconds."""
    from edgenas import training

    space, data = _training_data(settings, seed)
    latency = compiled_latency(space, settings.device, threads=1, workspace=Workspace(folder.parent))
    pool = networks_near(space, latency, limit_ms, seed=seed)
    budget = training.Budget(cpu_seconds=settings.supernet_seconds)
    supernet, _ = training.train_supernet(space, data, folder=folder, budget=budget, seed=seed, pool=pool)
    started = time.process_time()
    source = training.SupernetAccuracy(supernet, data, cache=folder / "scores.jsonl")
    problem = Problem(space, metrics={"latency": latency}, limits=[Limit(metric="latency", maximum=limit_ms)])
    strategy = Evolution(problem, seed=seed, evaluations=settings.evaluations)
    scored: dict[bytes, tuple[float, np.ndarray]] = {}
    while len(scored) < settings.evaluations:
        genomes = strategy.ask(min(20, settings.evaluations - len(scored)))
        if not len(genomes):
            break
        accuracies = source.score(genomes)
        strategy.tell(genomes, problem.objective_values(genomes, {"accuracy": accuracies}))
        scored |= {g.tobytes(): (float(a), g) for g, a in zip(genomes, accuracies, strict=True)}
    feasible = [item for item in scored.values() if latency(item[1][None])[0] <= limit_ms]
    best = sorted(feasible, key=lambda item: -item[0])[:FINALISTS]
    spent = settings.supernet_seconds + time.process_time() - started
    return {
        "cpu_seconds": spent,
        "finalists": [{"accuracy": accuracy, "genome": genome.tolist()} for accuracy, genome in best],
    }


def pick_winner(
    settings: Settings, found: dict[str, Any], limit_ms: float, folder: Path, classes: int
) -> dict[str, Any]:
    """The most accurate finalist that meets the limit by measurement, else the fastest."""
    space = float_space(settings.space, classes)
    networks = [space.network(np.array(item["genome"])) for item in found["finalists"]]
    if not networks:
        raise SystemExit(f"no network of {settings.space} meets {limit_ms:.3f} ms")
    latencies = measured_ms(networks, settings.device, folder)
    within = [index for index, latency in enumerate(latencies) if latency <= limit_ms]
    index = within[0] if within else int(np.argmin(latencies))
    return {"genome": found["finalists"][index]["genome"], "measured_ms": latencies[index]}


# --- trainings --------------------------------------------------------------------------------------


def _training_data(settings: Settings, seed: int) -> tuple[RestrictedSpace, Any]:
    from edgenas import training

    device = training.torch_device("cpu")
    training.prepare(device, 1)  # one thread a process: CPU seconds then mean the same under any load
    dataset = load_dataset(settings.data)
    space = float_space(settings.space, len(dataset.class_names))
    size = space.network(space.largest()).input_shape[1:]
    return space, training.TrainingData(dataset, seed=seed, size=size, device=device)


def train_cell(
    settings: Settings, cell: Cell, seconds: float, described: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Trains one network and returns its accuracy on the test split, as ONNX Runtime computes it."""
    import msgspec

    from edgenas import training

    space, data = _training_data(settings, cell.seed)
    train = {"folder": folder / cell.key, "seed": cell.seed, "budget": training.Budget(cpu_seconds=seconds)}
    if cell.network == "searched":
        genome = np.array(described["genome"])
        path = folder / f"search-{cell.seed}" / "supernet.pt"
        supernet = training.load_supernet(path, device=data.device, space=space)
        supernet.set_active(genome)
        supernet.calibrate(data.calibration_batches(*supernet.network.input_shape[1:]))
        network, inherited = supernet.network, supernet.subnet_state()
        trained = training.train_from_better_start(network, data, inherited=inherited, **train)
    else:
        network = msgspec.convert(described, Network)
        trained = training.train_network(network, data, **train)
    return {
        "accuracy": test_accuracy(network, trained.weights, settings.data),
        "validation_accuracy": trained.result.validation_accuracy,
        "epochs": len(trained.result.epochs),
        "cpu_seconds": trained.result.elapsed_s,
        "network": network.to_dict(),
        "macs": macs(network),
        "parameters": parameters(network),
    }


def test_accuracy(network: Network, weights: Any, data: str) -> float:
    """Share of the test images that the shipped model classifies correctly."""
    import onnxruntime

    dataset = load_dataset(data)
    assert dataset.test is not None, "the benchmark's data has a test split"
    model = build_onnx(network, weights=weights, batch=None)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    preprocessing = default_preprocessing(dataset, network.input_shape[1])
    right = 0
    for start in range(0, len(dataset.test), 250):
        indices = np.arange(start, min(start + 250, len(dataset.test)))
        inputs = preprocess(dataset.test.images(indices), preprocessing)
        logits = session.run(None, {"input": inputs})[0]
        right += int((logits.argmax(1) == dataset.test.labels[indices]).sum())
    return right / len(dataset.test)


def in_parallel(
    store: Store, workers: int, jobs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]
) -> None:
    """Runs what the store does not have yet, one process a job, and stores each result as it comes."""
    missing = {key: job for key, job in jobs.items() if key not in store.found}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        running = {pool.submit(work, *arguments): key for key, (work, arguments) in missing.items()}
        for done in as_completed(running):
            found = store.add(running[done], **done.result())
            shown = f"{found['accuracy']:.2%}" if "accuracy" in found else f"{found['cpu_seconds']:.0f} CPU s"
            print(f"{running[done]}: {shown}", file=sys.stderr)


# --- the whole --------------------------------------------------------------------------------------


def run(settings: Settings, folder: Path, workers: int) -> dict[str, Any]:
    """All cells, then one comparison of all networks."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "cells.jsonl")
    if store.once("settings", lambda: asdict(settings)) != {"key": "settings", **asdict(settings)}:
        raise SystemExit(f"{folder} holds a run with other settings; give another --folder")
    classes = len(load_dataset(settings.data).class_names)
    scaled = store.once(
        "scaled", lambda: scaled_networks(settings.latency_ms, settings, folder / "models", classes)
    )
    limit = scaled["limit_ms"]
    store.once("profile", lambda: _profiled(settings, folder))
    seeds = range(settings.seeds)
    in_parallel(store, workers, {
        f"search-{seed}": (search_cell, (settings, seed, limit, folder / f"search-{seed}")) for seed in seeds
    })  # fmt: skip
    winners = {
        seed: store.once(
            f"winner-{seed}",
            lambda seed=seed: pick_winner(
                settings, store.found[f"search-{seed}"], limit, folder / "models", classes
            ),
        )
        for seed in seeds
    }
    cells = [Cell("searched", seed) for seed in seeds]
    cells += [
        Cell(name, seed, counted)
        for seed in seeds
        for name in scaled["networks"]
        for counted in (False, True)
    ]
    jobs = {}
    for cell in cells:
        extra = store.found[f"search-{cell.seed}"]["cpu_seconds"] if cell.counted else 0.0
        described = winners[cell.seed] if cell.network == "searched" else scaled["networks"][cell.network]
        arguments = (settings, cell, settings.final_seconds + extra, described, folder)
        jobs[cell.key] = (train_cell, arguments)
    in_parallel(store, workers, jobs)
    latencies = store.once("latencies", lambda: _measured_together(store, cells, settings, folder))
    return summary(store, settings, scaled["networks"], latencies)


def _profiled(settings: Settings, folder: Path) -> dict[str, Any]:
    result = profile(
        device=settings.device, space=(settings.space,), precision=("fp32",), threads=1,
        time_limit_s=settings.profile_seconds, workspace=Workspace(folder),
    )  # fmt: skip
    return {"noise_floor": result.noise_floor, "environment": result.environment.to_dict()}


def _measured_together(store: Store, cells: list[Cell], settings: Settings, folder: Path) -> dict[str, Any]:
    import msgspec

    networks = [msgspec.convert(store.found[cell.key]["network"], Network) for cell in cells]
    found = measured_ms(networks, settings.device, folder / "models")
    return {"latency_ms": {cell.key: latency for cell, latency in zip(cells, found, strict=True)}}


def summary(
    store: Store, settings: Settings, families: Sequence[str], latencies: dict[str, Any]
) -> dict[str, Any]:
    """Mean accuracies, and the searched network's lead over each family with its 95 % interval."""
    seeds = range(settings.seeds)
    own = [store.found[f"searched-{seed}"]["accuracy"] for seed in seeds]
    rows = []
    for counted in (False, True):
        for family in families:
            keys = [Cell(family, seed, counted).key for seed in seeds]
            theirs = [store.found[key]["accuracy"] for key in keys]
            lead = [a - b for a, b in zip(own, theirs, strict=True)]
            rows.append(
                {
                    "network": family,
                    "supernet_counted": counted,
                    "latency_ms": statistics.mean(latencies["latency_ms"][key] for key in keys),
                    "accuracy": statistics.mean(theirs),
                    "lead": statistics.mean(lead),
                    "lead_halfwidth": halfwidth(lead),
                }
            )
    return {
        "settings": asdict(settings),
        "limit_ms": store.found["scaled"]["limit_ms"],
        "environment": store.found["profile"]["environment"],
        "searched": {
            "accuracy": statistics.mean(own),
            "latency_ms": statistics.mean(latencies["latency_ms"][f"searched-{seed}"] for seed in seeds),
        },
        "rows": rows,
        "cells": list(store.found.values()),
    }


def halfwidth(differences: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of paired differences; None with one pair."""
    from scipy import stats

    n = len(differences)
    if n < 2:
        return None
    return float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5


def print_table(result: dict[str, Any]) -> None:
    """One table for people."""
    own = result["searched"]
    print(
        f"limit {result['limit_ms']:.3f} ms, {result['settings']['seeds']} seeds, accuracy on the test split"
    )
    print(f"{'network':<20}{'supernet time':<15}{'ms':>8}{'accuracy':>10}{'lead of the searched':>24}")
    print(f"{'searched':<20}{'':<15}{own['latency_ms']:>8.3f}{own['accuracy']:>10.2%}")
    for row in result["rows"]:
        interval = "" if row["lead_halfwidth"] is None else f" ± {100 * row['lead_halfwidth']:.2f}"
        counted = "counted" if row["supernet_counted"] else "not counted"
        print(
            f"{row['network']:<20}{counted:<15}{row['latency_ms']:>8.3f}{row['accuracy']:>10.2%}"
            f"{100 * row['lead']:>+14.2f}{interval} points"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed and a few CPU seconds: does it run?")
    parser.add_argument("--json", type=Path, help="where the result goes as JSON")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", default=str(DATA), help="an .npz with a test split")
    parser.add_argument("--space", default="dense-32px")
    parser.add_argument("--device", default="local")
    parser.add_argument("--latency-ms", type=float, help="default: what ResNet-8 takes on the device")
    parser.add_argument("--supernet-seconds", type=float, help="CPU seconds of supernet training")
    parser.add_argument("--final-seconds", type=float, help="CPU seconds of final training")
    parser.add_argument("--evaluations", type=int, help="networks that the supernet scores")
    parser.add_argument("--profile-seconds", type=float, help="time limit of the latency table")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--folder", type=Path, help="where finished cells are kept")
    options = parser.parse_args()
    quick = options.quick
    settings = Settings(
        space=options.space,
        data=options.data,
        device=options.device,
        latency_ms=options.latency_ms,
        supernet_seconds=options.supernet_seconds or (4.0 if quick else 6.0),
        final_seconds=options.final_seconds or (8.0 if quick else 25.0),
        evaluations=options.evaluations or (8 if quick else 12),
        profile_seconds=options.profile_seconds or 60.0,
        seeds=options.seeds or (1 if quick else 3),
    )
    folder = options.folder or ROOT / "runs" / f"hand-designed{'-quick' if quick else ''}"
    result = run(settings, folder, options.workers)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
