"""A new device from 10 or 20 measured networks, on NAS-Bench-201 by HELP's protocol.

Donors are HELP's nine meta-training devices, each known on 900 networks only (extremely randomised
trees predict the rest). The target's networks are chosen without measuring them, from the same 900.
Scored as HELP does: Spearman on all other networks without the fastest and slowest tenth. HELP's own
numbers are those of its README: 10 reference networks plus 10 to fine-tune.

    python bench/few_shot.py [--quick] [--json OUT] [--seeds N]
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

from edgenas.latency_tables.transfer import Networks, Transfer, choose_informative

DATA = Path(__file__).parents[2] / "shared" / "data" / "nasbench201" / "help_latency_ms.csv"
DONORS = "1080ti_1 1080ti_32 1080ti_256 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7"
TARGETS = ["titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"]
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
HELP = {
    "titan_rtx_256": 0.987,
    "gold_6226": 0.989,
    "fpga": 0.985,
    "pixel2": 0.802,
    "raspi4": 0.890,
    "eyeriss": 0.940,
}
KNOWN = 900
TO_REACH = {10: 0.935, 20: 0.945}


def read() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Operations (N, 6) of every network and its latency by device."""
    with DATA.open() as stream:
        rows = list(csv.DictReader(stream))
    cells = [
        [OPERATIONS.index(op) for op in re.findall(r"([a-z_0-9]+)~\d", row["architecture"])] for row in rows
    ]
    devices = [name for name in rows[0] if name not in {"index", "architecture"}]
    return np.array(cells), {name: np.array([float(row[name]) for row in rows]) for name in devices}


def networks_from(
    cells: np.ndarray, latency: dict[str, np.ndarray], known: np.ndarray, trees: int
) -> Networks:
    """Every network with its latencies on the donors, predicted from the known ones."""
    one_hot = np.eye(len(OPERATIONS))[cells]
    edges, counts = one_hot.reshape(len(cells), -1), one_hot.sum(axis=1)
    inputs = np.hstack([edges, counts])
    donors = []
    for name in DONORS.split():
        forest = ExtraTreesRegressor(trees, max_features=0.4, random_state=0)
        forest.fit(inputs[known], np.log(latency[name][known]))
        donors.append(np.exp(forest.predict(inputs)))
    return Networks(np.array(donors).T, counts, (edges - edges.mean(axis=0)) / edges.std(axis=0))


def trimmed_spearman(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Spearman without the fastest and the slowest tenth, as HELP's loader scores."""
    order = np.argsort(measured)
    kept = order[len(order) // 10 : -(len(order) // 10)]
    return float(spearmanr(predicted[kept], measured[kept]).statistic)


def trial(networks: Networks, measured: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """One target device from the chosen networks."""
    fitted = Transfer.fit(networks.at(chosen), measured[chosen])
    others = np.setdiff1d(np.arange(len(measured)), chosen)
    predicted, halfwidth = fitted.predict(networks.at(others))
    error = np.abs(predicted / measured[others] - 1.0)
    return {
        "spearman": trimmed_spearman(predicted, measured[others]),
        "within_5": float(np.mean(error <= 0.05)),
        "within_10": float(np.mean(error <= 0.10)),
        "interval_coverage": float(np.mean(np.abs(predicted - measured[others]) <= halfwidth)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds and small forests")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "few_shot.json")
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    if not DATA.is_file():
        print(f"there is no {DATA}: NAS-Bench-201 latencies as in HELP's repository", file=sys.stderr)
        return 1
    seeds = 3 if arguments.quick else arguments.seeds
    cells, latency = read()
    samples: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        known = rng.permutation(len(cells))[:KNOWN]
        networks = networks_from(cells, latency, known, 50 if arguments.quick else 200)
        for count in TO_REACH:
            drawn = {
                "chosen": known[choose_informative(networks.at(known), count, rng)],
                "random": rng.choice(len(cells), count, replace=False),
            }
            for way, chosen in drawn.items():
                for target in TARGETS:
                    samples[f"{count} {way}"][target].append(trial(networks, latency[target], chosen))
    show(samples, seeds)
    write(arguments.json, samples, seeds)
    return 0


def mean(trials: list[dict[str, float]], name: str) -> float:
    return float(np.mean([one[name] for one in trials]))


def show(samples: dict[str, dict[str, list[dict[str, float]]]], seeds: int) -> None:
    print(f"Spearman on NAS-Bench-201, mean of {seeds} seeds; to reach: .935 at 10, .945 at 20")
    print(
        f"{'samples':12}"
        + "".join(f"{target:>15}" for target in TARGETS)
        + f"{'mean':>8}{'±5 %':>8}{'±10 %':>8}{'90 % held':>11}"
    )
    print(
        f"{'HELP 10+10':12}"
        + "".join(f"{HELP[target]:15.3f}" for target in TARGETS)
        + f"{np.mean(list(HELP.values())):8.3f}"
    )
    for way, by_target in samples.items():
        scores = [mean(by_target[target], "spearman") for target in TARGETS]
        rest = [
            np.mean([mean(by_target[t], name) for t in TARGETS])
            for name in ("within_5", "within_10", "interval_coverage")
        ]
        print(
            f"{way:12}"
            + "".join(f"{score:15.3f}" for score in scores)
            + f"{np.mean(scores):8.4f}"
            + "".join(f"{value:8.3f}" for value in rest)
        )


def write(path: Path, samples: dict[str, dict[str, list[dict[str, float]]]], seeds: int) -> None:
    means = {
        way: float(np.mean([mean(t, "spearman") for t in by_target.values()]))
        for way, by_target in samples.items()
    }
    content = {
        "bench": "few_shot",
        "environment": {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "seeds": seeds,
        "mean_spearman": means,
        "help": HELP,
        "samples": samples,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.exit(main())
