"""Evolution beside once-for-all's EvolutionFinder on its own table and accuracy predictor.

    python bench/search_ofa.py [--quick] [--json OUT] [--seeds N] [--first-seed K]

Both search once-for-all's MobileNetV3 space under a latency limit on a Samsung Note10, with its
published block table and accuracy predictor. Ours counts unique candidates within the limit; the
peer's are counted as it evaluates them (repeats and all), and its unique ones are shown. The
accuracies are what the predictor says, not ImageNet. One core each; time is CPU time. Runs that OUT
holds are not made again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core for either side
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import importlib.util
import io
import json
import random
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ofa_space import DATA, AccuracyPredictor, Note10Table, OfaSpace
from provenance import provenance
from search_hwnas import resumed

from edgenas.search.evolution import Evolution
from edgenas.search.problem import Limit, Problem

LIMITS_MS = (25, 20, 15)
EVALUATIONS = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the evaluations, 2 seeds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first-seed", type=int, default=1000, help="settings were chosen on 100 to 104")
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    seeds = options.seeds or (2 if options.quick else 5)
    evaluations = EVALUATIONS // 10 if options.quick else EVALUATIONS
    peer = None if options.without_peer else Peer()
    agreement = None if peer is None else peer.agreement()
    tools = {"edgenas": ours} | ({} if peer is None else {"ofa": peer.run})
    rows = resumed(options.json)
    done = {(row["tool"], row["limit_ms"], row["seed"]) for row in rows}
    for tool, run in tools.items():
        for seed in range(options.first_seed, options.first_seed + seeds):
            for limit in LIMITS_MS:
                if (tool, limit, seed) not in done:
                    rows.append(run(limit, seed, evaluations))
                    if options.json:
                        save(options.json, agreement, rows)
    show(rows)


def save(path: Path, agreement: dict[str, float] | None, rows: list[dict[str, Any]]) -> None:
    packages = ("numpy", "torch", "ofa") if agreement else ("numpy", "torch")
    content = {"environment": provenance(*packages), "agreement": agreement, "runs": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")


def ours(limit_ms: float, seed: int, evaluations: int) -> dict[str, Any]:
    """One run of the strategy ``evolution`` with its default settings."""
    table, predictor = Note10Table(), AccuracyPredictor()
    problem = Problem(
        OfaSpace(),
        metrics={"latency_ms": table.latency_ms},
        limits=[Limit(metric="latency_ms", maximum=limit_ms)],
    )
    started = time.process_time()
    strategy = Evolution(problem, seed=seed, evaluations=evaluations)
    while len(strategy.history) < evaluations:
        genomes = strategy.ask(min(strategy.generation_size, evaluations - len(strategy.history)))
        strategy.tell(genomes, -predictor.score(genomes)[:, None], np.zeros(len(genomes)))
    seconds = time.process_time() - started
    history = strategy.history
    unique = np.unique(history.genomes, axis=0)
    assert len(unique) == evaluations
    assert (table.latency_ms(unique) <= limit_ms).all()
    best = int(np.argmin(history.objectives[:, 0]))
    return {
        "tool": "edgenas",
        "limit_ms": limit_ms,
        "seed": seed,
        "top1": -float(history.objectives[best, 0]),
        "latency_ms": float(table.latency_ms(history.genomes[best : best + 1])[0]),
        "evaluations": evaluations,
        "unique": len(unique),
        "cpu_s": seconds,
    }


class Peer:
    """``ofa.tutorial``'s EvolutionFinder, LatencyTable and AccuracyPredictor as published.

    Three things keep the published package from running today and are stood in for: downloads
    (the files are on disk), ``yaml.load`` without a loader, and the import of torchvision by the
    package's ``__init__``.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("ofa")
        if found is None or not found.submodule_search_locations:
            sys.exit(
                "the peer `ofa` is not installed: make bench-env, then .venv-bench/bin/python " + __file__
            )
        root = Path(found.submodule_search_locations[0]) / "tutorial"
        utils = types.ModuleType("ofa.utils")
        utils.download_url = local_file  # type: ignore[attr-defined]
        sys.modules.update({"ofa": types.ModuleType("ofa"), "ofa.utils": utils})
        with_loader = yaml.load
        yaml.load = lambda stream, Loader=yaml.SafeLoader: with_loader(stream, Loader)  # noqa: N803
        with contextlib.redirect_stdout(io.StringIO()):
            self.table = load(root / "latency_table.py").LatencyTable()
        self.predictor = load(root / "accuracy_predictor.py").AccuracyPredictor(device="cpu")
        self.finder = load(root / "evolution_finder.py").EvolutionFinder
        import torch

        torch.set_num_threads(1)

    def agreement(self) -> dict[str, float]:
        """Largest difference between the peer's functions and ours on 200 random candidates."""
        space = OfaSpace()
        genomes = space.sample(np.random.default_rng(0), 200)
        samples = [space.peer_sample(genome) for genome in genomes]
        latency = np.array([self.table.predict_efficiency(sample) for sample in samples])
        top1 = self.predictor.predict_accuracy(samples).numpy()[:, 0]
        result = {
            "latency_ms": float(np.abs(latency - Note10Table().latency_ms(genomes)).max()),
            "top1": float(np.abs(top1 - AccuracyPredictor().score(genomes)).max()),
        }
        assert result["latency_ms"] < 1e-9
        assert result["top1"] < 1e-5
        return result

    def run(self, limit_ms: float, seed: int, evaluations: int) -> dict[str, Any]:
        """One run with the peer's default settings."""
        random.seed(seed)
        np.random.seed(seed)  # the peer draws from the global generators
        counted = Counted(self.predictor)
        generations = evaluations // 100
        finder = self.finder("note10", limit_ms, self.table, counted, max_time_budget=generations)
        started = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):
            _, (top1, _, latency_ms) = finder.run_evolution_search()
        return {
            "tool": "ofa",
            "limit_ms": limit_ms,
            "seed": seed,
            "top1": float(top1),
            "latency_ms": float(latency_ms),
            "evaluations": counted.count,
            "unique": len(counted.seen),
            "cpu_s": time.process_time() - started,
        }


class Counted:
    """The peer's predictor, counting what it is asked."""

    def __init__(self, predictor: Any) -> None:
        self.predictor, self.count, self.seen = predictor, 0, set[str]()

    def predict_accuracy(self, population: list[dict[str, Any]]) -> Any:
        self.count += len(population)
        self.seen |= {repr(sample) for sample in population}
        return self.predictor.predict_accuracy(population)


def local_file(url: str, *_: Any, **__: Any) -> str:
    """The file on disk for a URL of han-cai/files."""
    name = url.rsplit("/", 1)[1]
    return str(DATA / ("ofa_mbv3_acc_predictor.pth" if name == "acc_predictor.pth" else f"ofa_note10_{name}"))


def load(path: Path) -> types.ModuleType:
    """One module by its file, without running its package's ``__init__``."""
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(rows: list[dict[str, Any]]) -> None:
    """One table: mean over the seeds, then every seed."""
    print("limit ms  tool     mean top-1 %   unique    candidates/s   each seed")
    for limit in LIMITS_MS:
        for tool in dict.fromkeys(row["tool"] for row in rows):
            group = [row for row in rows if row["limit_ms"] == limit and row["tool"] == tool]
            top1 = np.array([100 * row["top1"] for row in group])
            speed = np.median([row["evaluations"] / row["cpu_s"] for row in group])
            unique = np.mean([row["unique"] for row in group])
            each = " ".join(f"{value:.3f}" for value in top1)
            print(f"{limit:8}  {tool:8} {top1.mean():11.3f}  {unique:8.0f}  {speed:13,.0f}   {each}")


if __name__ == "__main__":
    main()
