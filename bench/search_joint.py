"""Architecture and compression searched together, against architecture first and compression after.

    python bench/search_joint.py [--quick] [--json OUT] [--seeds N]

Both arms get the same images, the same CPU seconds for a supernet, the same number of scored networks
and the same CPU seconds for the final training, a seed and a limit at a time. `joint` trains the
supernet on networks of the whole space just within the limit and searches them. `sequential` trains it
on float networks just within several multiples of the limit, spends half of its scores on these, takes
the best one within each multiple, and spends the other half on compressing these (int8, pruning, low
rank) to the limit; the best of all goes on. Finalists are measured before one is trained, the trained
networks are quantized by calibration, and all shipped models are measured in one comparison.

Killed and started again, the benchmark goes on with the cells that are not finished. The phases can be
run one by one, so that only those that measure latency need a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from provenance import provenance

from edgenas.datasets import default_preprocessing, load_dataset
from edgenas.device_profiles import load_profile
from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.measuring import connect
from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.limits import networks_near
from edgenas.pipeline.profile import profile
from edgenas.search.evolution import Evolution
from edgenas.search.problem import Limit, Problem
from edgenas.search_spaces import Network, RestrictedSpace, SearchSpace, build_onnx, get_space, macs
from edgenas.search_spaces.counted import CountedSpace
from edgenas.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/cifar10_small.npz"
ARMS = ("joint", "sequential")
PHASES = ("profile", "search", "pick", "train", "compare")
COMPRESSING = ("precision", "kept", "rank")
SLACKS = (1.25, 1.75, 2.5)
"""Multiples of the limit for architectures that are to be compressed to it."""
FINALISTS = 4
GENERATION = 15


@dataclass(frozen=True)
class Settings:
    """What decides the outcome; a folder with other settings is not continued."""

    space: str
    data: str
    device: str
    limits: tuple[float, ...]
    supernet_seconds: float
    final_seconds: float
    evaluations: int
    profile_seconds: float
    seeds: int


@dataclass(frozen=True)
class Cell:
    """One network to find and train; ``share`` is of what the largest float network takes."""

    arm: str
    seed: int
    share: float

    @property
    def key(self) -> str:
        return f"{self.arm}-{self.seed}-{self.share:g}"


def cells(settings: Settings) -> list[Cell]:
    return [
        Cell(arm, seed, share) for seed in range(settings.seeds) for arm in ARMS for share in settings.limits
    ]


class Store:
    """Finished results, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a kill can cut the last line
        if whole != text:
            path.write_text(whole)
        self.found = {line["key"]: line for line in map(json.loads, whole.splitlines())}

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is stored under ``key``, else what ``work`` gives."""
        if key not in self.found:
            line = json.loads(json.dumps({"key": key, **work()}))
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.found[key] = line
        return self.found[key]


class Bench:
    """All phases of one run, in a folder that is also the workspace of the latency table."""

    def __init__(self, settings: Settings, folder: Path, only: Sequence[int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.settings, self.folder = settings, folder
        self.seeds = tuple(only) or tuple(range(settings.seeds))
        self.workspace = Workspace(folder)
        self.store = Store(folder / "cells.jsonl")
        wanted = json.loads(json.dumps(asdict(settings)))
        if self.store.once("settings", lambda: wanted) != {"key": "settings", **wanted}:
            raise SystemExit(f"{folder} holds a run with other settings; give another --folder")
        self.dataset = load_dataset(settings.data)
        self.space = get_space(settings.space, classes=len(self.dataset.class_names))
        self.plain = RestrictedSpace(self.space, uncompressed(self.space) | precisions(self.space, "fp32"))

    # --- phases -------------------------------------------------------------------------------------

    def profile(self) -> None:
        """Measures the table of the whole space."""

        def work() -> dict[str, Any]:
            result = profile(
                device=self.settings.device, space=(self.settings.space,), precision=("fp32", "int8"),
                threads=1, time_limit_s=self.settings.profile_seconds, workspace=self.workspace,
            )  # fmt: skip
            return {"noise_floor": result.noise_floor, "environment": result.environment.to_dict()}

        self.store.once("profile", work)
        latency = self._latency()
        unit = float(latency(self.plain.to_base(self.plain.largest())[None])[0])
        self.store.once("unit", lambda: {"latency_ms": unit})

    def search(self) -> None:
        """Trains the supernet and finds the finalists of every cell."""
        for cell in self._cells():
            self.store.once(f"found-{cell.key}", lambda cell=cell: self._searched(cell))

    def pick(self) -> None:
        """Measures the finalists of every cell and keeps the best one within the limit."""
        for cell in self._cells():
            self.store.once(f"winner-{cell.key}", lambda cell=cell: self._picked(cell))

    def train(self) -> None:
        """Trains every winner and quantizes it."""
        for cell in self._cells():
            found = self.store.once(f"trained-{cell.key}", lambda cell=cell: self._trained(cell))
            print(f"{cell.key}: {found['accuracy']:.2%}", file=sys.stderr)

    def compare(self) -> dict[str, Any]:
        """Measures all shipped models side by side and compares the arms."""

        def work() -> dict[str, Any]:
            keys = [cell.key for cell in cells(self.settings)]
            found = self._measured([self.folder / f"{key}.onnx" for key in keys])
            return {"latency_ms": dict(zip(keys, found, strict=True))}

        return summary(self.settings, self.store, self.store.once("latencies", work)["latency_ms"])

    def _cells(self) -> list[Cell]:
        return [cell for cell in cells(self.settings) if cell.seed in self.seeds]

    # --- searching ----------------------------------------------------------------------------------

    def _limit_ms(self, cell: Cell) -> float:
        return float(cell.share * self.store.found["unit"]["latency_ms"])

    def _latency(self) -> CompiledSpace:
        return compiled_latency(self.space, self.settings.device, threads=1, workspace=self.workspace)

    def _training_data(self, seed: int) -> Any:
        from edgenas import training

        device = training.torch_device("cpu")
        training.prepare(device, 1)
        size = self.space.network(self.space.largest()).input_shape[1:]
        return training.TrainingData(self.dataset, seed=seed, size=size, device=device)

    def _searched(self, cell: Cell) -> dict[str, Any]:
        """The best of the networks that the cell's own supernet scores, and what finding them took.

        A supernet that was trained on uncompressed networks scores compressed ones too: these prune and
        factor its weights.
        """
        from edgenas import training

        data, where = self._training_data(cell.seed), self.folder / f"{cell.key}-supernet"
        supernet, result = training.train_supernet(
            self.space, data, folder=where, seed=cell.seed, pool=self._pool(cell),
            budget=training.Budget(cpu_seconds=self.settings.supernet_seconds),
        )  # fmt: skip
        source = training.SupernetAccuracy(supernet, data, cache=where / "scores.jsonl")
        started = time.process_time()
        found = sorted(self._found(cell, source), key=lambda item: -item[0])
        spent = time.process_time() - started
        print(f"{cell.key}: scored {found[0][0]:.2%} in {spent:.0f} CPU s", file=sys.stderr)
        return {
            "finalists": [{"score": score, "genome": genome.tolist()} for score, genome in found[:FINALISTS]],
            "scored": len(found),
            "search_cpu_seconds": spent,
            "supernet_epochs": len(result.epochs),
            "supernet_accuracy": result.validation_accuracy,
        }

    def _pool(self, cell: Cell) -> np.ndarray:
        """The networks that the cell's supernet is trained on."""
        latency, limit = self._latency(), self._limit_ms(cell)
        if cell.arm == "joint":
            return networks_near(self.space, latency, limit, seed=cell.seed)
        whole = self.plain.to_base
        near = [
            whole(networks_near(self.plain, lambda one: latency(whole(one)), slack * limit, seed=cell.seed))
            for slack in SLACKS
        ]
        return np.unique(self.space.canonical(np.concatenate(near)), axis=0)

    def _found(self, cell: Cell, source: Any) -> Iterator[tuple[float, np.ndarray]]:
        """Scores and genomes of the whole space within the limit, for all of the cell's evaluations."""
        evaluations, limit = self.settings.evaluations, self._limit_ms(cell)
        if cell.arm == "joint":
            yield from self._evolved(self.space, source, limit, evaluations, cell.seed)
            return
        half = evaluations // 2
        architectures = list(self._evolved(self.plain, source, SLACKS[-1] * limit, half, cell.seed))
        latency = self._latency()
        for slack in SLACKS:
            within = [item for item in architectures if latency(item[1][None])[0] <= slack * limit]
            if not within:
                continue
            best = max(within, key=lambda item: item[0])[1]
            compressible = RestrictedSpace(self.space, fixed_architecture(self.space, best))
            yield from self._evolved(compressible, source, limit, half // len(SLACKS), cell.seed)

    def _evolved(
        self, space: SearchSpace, source: Any, limit_ms: float, evaluations: int, seed: int
    ) -> Iterator[tuple[float, np.ndarray]]:
        """What evolution scores in ``space``, as genomes of the whole space."""
        whole = space.to_base if isinstance(space, RestrictedSpace) else lambda genomes: genomes
        latency = self._latency()
        problem = Problem(
            space,
            metrics={"latency_ms": lambda genomes: latency(whole(genomes))},
            limits=[Limit(metric="latency_ms", maximum=limit_ms)],
            traits=CountedSpace(space).traits,
        )
        strategy = Evolution(problem, seed=seed, evaluations=evaluations)
        done = 0
        while done < evaluations:
            genomes = strategy.ask(min(GENERATION, evaluations - done))
            if not len(genomes):
                return
            in_base = self.space.canonical(whole(genomes))
            scores = source.score(in_base)
            strategy.tell(genomes, problem.objective_values(genomes, {"accuracy": scores}))
            done += len(genomes)
            yield from zip(scores.tolist(), in_base, strict=True)

    # --- measuring and training ---------------------------------------------------------------------

    def _picked(self, cell: Cell) -> dict[str, Any]:
        """The best finalist that keeps the limit by measurement, else the fastest."""
        finalists = self.store.found[f"found-{cell.key}"]["finalists"]
        scheme = load_profile(self.settings.device, self.workspace).int8_scheme
        paths = []
        for number, finalist in enumerate(finalists):
            network = self.space.network(np.array(finalist["genome"]))
            paths.append(self.folder / f"{cell.key}-finalist-{number}.onnx")
            paths[-1].write_bytes(build_onnx(network, int8_scheme=scheme).SerializeToString())
        latencies = self._measured(paths)
        within = [n for n, latency in enumerate(latencies) if latency <= self._limit_ms(cell)]
        chosen = within[0] if within else int(np.argmin(latencies))
        return {"genome": finalists[chosen]["genome"], "measured_ms": latencies, "chosen": chosen}

    def _measured(self, paths: Sequence[Path]) -> list[float]:
        with connect(load_profile(self.settings.device, self.workspace)) as agent:
            hashes = [agent.ship(path) for path in paths]
            found = {one.model_sha256: one.statistics for one in agent.compare(hashes, threads=1)}
        missing = [path.name for path, key in zip(paths, hashes, strict=True) if found[key] is None]
        if missing:
            raise SystemExit(f"these models could not be measured: {missing}")
        return [found[key].latency_ms for key in hashes]

    def _trained(self, cell: Cell) -> dict[str, Any]:
        from edgenas import training

        data = self._training_data(cell.seed)
        genome = np.array(self.store.found[f"winner-{cell.key}"]["genome"])
        state_of = training.load_supernet(
            self.folder / f"{cell.key}-supernet" / "supernet.pt", device=data.device, space=self.space
        )
        state_of.set_active(genome)
        network = state_of.network
        state_of.calibrate(data.calibration_batches(*network.input_shape[1:]))
        trained = training.train_network(
            network, data, folder=self.folder / cell.key, seed=cell.seed, state=state_of.subnet_state(),
            budget=training.Budget(cpu_seconds=self.settings.final_seconds),
        )  # fmt: skip
        path = self.folder / f"{cell.key}.onnx"
        path.write_bytes(self._shipped(network, trained.weights, data))
        return {
            "accuracy": self._test_accuracy(path, network),
            "float_validation_accuracy": trained.result.validation_accuracy,
            "epochs": len(trained.result.epochs),
            "macs": macs(network),
            "candidate": self.space.describe(genome),
        }

    def _shipped(self, network: Network, weights: Any, data: Any) -> bytes:
        """The network with the int8 layers that its genes say, calibrated on training images."""
        from edgenas.quantization.inputs import ImageInputs
        from edgenas.quantization.quantizer import Quantizer
        from edgenas.quantization.schemes import QuantizationScheme

        model = build_onnx(network, weights=weights, precision=False)
        floats = tuple(layer.name for layer in network.layers if layer.precision == "fp32")
        if len(floats) == len(network.layers):
            return model.SerializeToString()
        preprocessing = default_preprocessing(self.dataset, network.input_shape[1])
        inputs = ImageInputs("input", data.train.subset(np.arange(256)), preprocessing)
        scheme = QuantizationScheme(
            types=load_profile(self.settings.device, self.workspace).int8_scheme,
            reduced_range=True, float_layers=floats,
        )  # fmt: skip
        return Quantizer(model, inputs).quantize(scheme).SerializeToString()

    def _test_accuracy(self, path: Path, network: Network) -> float:
        """Share of the test images that the shipped model classifies correctly."""
        import onnxruntime

        from edgenas.datasets import preprocess

        test = self.dataset.test
        assert test is not None and test.labels is not None, "the benchmark's data has a test split"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        preprocessing = default_preprocessing(self.dataset, network.input_shape[1])
        right = 0
        for index in range(len(test)):
            images = preprocess(test.images(np.array([index])), preprocessing)
            right += int(session.run(None, {"input": images})[0].argmax() == test.labels[index])
        return right / len(test)


def uncompressed(space: SearchSpace) -> dict[str, tuple[Any, ...]]:
    """What leaves the compression genes no choice, by gene; precision is not among them."""
    genes = [choice for choice in space.choices if choice.name.split(".")[-1] in ("kept", "rank")]
    return {choice.name: choice.options[-1:] for choice in genes}


def precisions(space: SearchSpace, precision: str) -> dict[str, tuple[Any, ...]]:
    """One precision for every gene of precision."""
    return {c.name: (precision,) for c in space.choices if c.name.endswith(".precision")}


def fixed_architecture(space: SearchSpace, genome: np.ndarray) -> dict[str, tuple[Any, ...]]:
    """The options of one genome for every gene but those that compress."""
    chosen = dict(zip((choice.name for choice in space.choices), genome.tolist(), strict=True))
    return {
        choice.name: (choice.options[chosen[choice.name]],)
        for choice in space.choices
        if choice.name.split(".")[-1] not in COMPRESSING
    }


# --- results --------------------------------------------------------------------------------------------


def summary(settings: Settings, store: Store, latency_ms: dict[str, float]) -> dict[str, Any]:
    """A row a limit and one over all of them: the arms' accuracies and the paired difference."""
    rows = []
    for shares in [*((share,) for share in settings.limits), settings.limits]:
        own, theirs = (
            [
                store.found[f"trained-{Cell(arm, seed, share).key}"]["accuracy"]
                for share in shares
                for seed in range(settings.seeds)
            ]
            for arm in ARMS
        )
        lead = [a - b for a, b in zip(own, theirs, strict=True)]
        keys = {
            arm: [Cell(arm, seed, share).key for share in shares for seed in range(settings.seeds)]
            for arm in ARMS
        }
        rows.append({
            "limit_ms": shares[0] * store.found["unit"]["latency_ms"] if len(shares) == 1 else None,
            "joint": statistics.mean(own),
            "sequential": statistics.mean(theirs),
            "lead": statistics.mean(lead),
            "lead_halfwidth": halfwidth(lead),
            "pairs": len(lead),
            **{f"{arm}_ms": statistics.mean(latency_ms[key] for key in keys[arm]) for arm in ARMS},
        })  # fmt: skip
    return {
        "settings": asdict(settings) | {"data": Path(settings.data).name},
        "environment": provenance("edgenas", "torch", "onnxruntime", "numpy")
        | {"device": store.found["profile"]["environment"]},
        "rows": rows,
        "cells": [line for key, line in store.found.items() if key not in ("settings", "profile")],
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
    print(f"accuracy of the shipped models on the test split, {result['settings']['seeds']} seeds")
    print(
        f"{'limit ms':>9}{'joint':>9}{'ms':>8}{'sequential':>12}{'ms':>8}"
        f"{'joint leads by (95 % interval of the pairs)':>46}"
    )
    for row in result["rows"]:
        limit = "all" if row["limit_ms"] is None else f"{row['limit_ms']:.3f}"
        interval = "" if row["lead_halfwidth"] is None else f" ± {100 * row['lead_halfwidth']:.2f}"
        lead = f"{100 * row['lead']:+.2f}{interval} points, {row['pairs']} pairs"
        print(
            f"{limit:>9}{row['joint']:>9.2%}{row['joint_ms']:>8.3f}{row['sequential']:>12.2%}"
            f"{row['sequential_ms']:>8.3f}{lead:>46}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed and a few CPU seconds: does it run?")
    parser.add_argument("--json", type=Path, help="where the result goes as JSON")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", default=str(DATA), help="an .npz with a test split")
    parser.add_argument("--space", default="mobilenetv3-32px-joint")
    parser.add_argument("--device", default="local")
    parser.add_argument("--limits", default="0.15", help="shares of the largest float network's time")
    parser.add_argument("--supernet-seconds", type=float, help="CPU seconds of supernet training")
    parser.add_argument("--final-seconds", type=float, help="CPU seconds of final training")
    parser.add_argument("--evaluations", type=int, help="networks that a supernet scores, a limit")
    parser.add_argument("--profile-seconds", type=float, help="time limit of the latency table")
    parser.add_argument("--phases", default=",".join(PHASES), help="which phases to run now")
    parser.add_argument("--only-seed", type=int, action="append", help="search and train this seed alone")
    parser.add_argument("--folder", type=Path, help="where finished cells are kept")
    options = parser.parse_args()
    quick = options.quick
    settings = Settings(
        space=options.space,
        data=options.data,
        device=options.device,
        limits=tuple(float(share) for share in options.limits.split(",")),
        supernet_seconds=options.supernet_seconds or (15.0 if quick else 110.0),
        final_seconds=options.final_seconds or (8.0 if quick else 50.0),
        evaluations=options.evaluations or (12 if quick else 60),
        profile_seconds=options.profile_seconds or (40.0 if quick else 300.0),
        seeds=options.seeds or (1 if quick else 3),
    )
    folder = options.folder or ROOT / "runs" / f"search-joint{'-quick' if quick else ''}"
    bench = Bench(settings, folder, options.only_seed or ())
    result = None
    for phase in options.phases.split(","):
        result = getattr(bench, phase)()
    if result is None:
        return
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
