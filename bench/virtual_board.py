"""How well virtual boards repeat themselves, and how well tables predict where there is no noise.

Every board profiles networks of a small space in fp32 and int8 as `edgenas profile` does it. It is then
stopped and started anew, and the first networks are profiled again into an empty table: the repetition is the
difference between the two latencies of a network. The others are judged by prediction: 40 networks of
each cell were held out of the fit. Milliseconds are virtual: counted instructions, never a real board's
time. A killed run goes on with the next measurement.

    python bench/virtual_board.py [--quick] [--json OUT] [--seeds N] [--device virtual-a72]...
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from provenance import provenance

from edgenas.device_profiles import load_profile
from edgenas.latency_tables.evaluation import rmspe, share_within
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.device_setup import device_start, device_stop
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import PlannedNetwork, Target, interleaved, plan_space
from edgenas.search_spaces.staged import Stage, StagedDescription, StagedSpace, Stem
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
DEVICES = ("virtual-a72", "virtual-a76")
PRECISIONS = ("fp32", "int8")
HELD_OUT, QUICK_HELD_OUT = 40, 12
REPEATED, QUICK_REPEATED = 40, 10

# Networks of half a millisecond to two, so that hundreds of them are minutes of an emulated processor.
SPACE = StagedDescription(
    name="virtual-board",
    resolution=(24,),
    stem=Stem(width=(16,), stride=2),
    stages=(
        Stage(width=(16, 24), depth=(1, 2), operator=("depthwise", "fused"), expansion=(1,)),
        Stage(
            width=(32, 48), depth=(1,), stride=2, kernel=(3, 5), operator=("depthwise", "fused"),
            expansion=(2,), activation=("relu", "hardswish"), se=(False, True),
        ),
    ),
)  # fmt: skip


def measure(device: str, folder: Path, *, quick: bool, seed: int, repeated: bool) -> tuple[Path, dict]:
    """Profiles one board as far as that is not done; gives the table and the environment."""
    workspace = Workspace(folder)
    profile = load_profile(device, workspace)
    with connect(profile) as agent, LatencyTable.open(workspace.table_path(device), create=True) as table:
        plan = planned(Target.of(agent.environment, profile.int8_scheme), quick=quick, seed=seed)
        if repeated:
            plan = plan[: 2 * (QUICK_REPEATED if quick else REPEATED)]
        table.begin_run(f"bench virtual_board {device}")
        Measuring(agent, table, agent.threads, None, np.random.default_rng(seed)).measure(plan)
        return table.path, agent.environment.to_dict()


def planned(target: Target, *, quick: bool, seed: int) -> list[PlannedNetwork]:
    held_out = QUICK_HELD_OUT if quick else HELD_OUT
    space = StagedSpace(SPACE, classes=10)
    return interleaved([plan_space(space, p, target, seed=seed, held_out=held_out) for p in PRECISIONS])


def judge(first: Path, second: Path) -> dict[str, dict[str, object]]:
    """Repetition and prediction by precision."""
    with LatencyTable.open(first) as table, LatencyTable.open(second) as other:
        observations, again = observe(table), observe(other)
    latency_again = {one.network.model_sha256: one.latency_ms for one in again.networks}
    predictor = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
    return {
        precision: {
            "fitted_networks": sum(
                one.network.precision == precision for one in observations.with_role("fit")
            ),
            **repetition(
                [one for one in observations.networks if one.network.precision == precision], latency_again
            ),
            **prediction(
                [one for one in observations.with_role("held-out") if one.network.precision == precision],
                predictor,
            ),
        }
        for precision in PRECISIONS
    }


def repetition(networks: Sequence, again: dict[str, float]) -> dict[str, object]:
    pairs = [
        (one.latency_ms, again[one.network.model_sha256])
        for one in networks
        if one.network.model_sha256 in again
    ]
    first, second = np.array(pairs).T
    difference = np.abs(second / first - 1.0)
    return {
        "repeated_networks": len(pairs),
        "repeat_within_0.1": float(np.mean(difference <= 0.001)),
        "repeat_largest": float(difference.max()),
        "first_ms": first.tolist(),
        "second_ms": second.tolist(),
    }


def prediction(held_out: Sequence, predictor: LatencyPredictor) -> dict[str, object]:
    found = list(predictor.estimates(held_out))
    measured = np.array([one.latency_ms for one, _ in found])
    predicted = np.array([estimate.latency_ms for _, estimate in found])
    low, high = np.array([one.interval_ms for _, one in found]).T
    return {
        "held_out_networks": len(found),
        "unpriceable": len(held_out) - len(found),
        "within_1": share_within(predicted, measured, 0.01),
        "within_2": share_within(predicted, measured, 0.02),
        "rmspe": rmspe(predicted, measured),
        "largest_error": float(np.max(np.abs(predicted / measured - 1.0))),
        "interval_coverage": float(np.mean((low <= measured) & (measured <= high))),
        "names": [one.network.name for one, _ in found],
        "measured_ms": measured.tolist(),
        "predicted_ms": predicted.tolist(),
    }


def show(devices: dict[str, dict[str, dict[str, object]]]) -> None:
    print("virtual milliseconds: counted instructions, never a real board's time")
    print(f"{'device':13}{'precision':10}{'repeated':>9}{'<= 0.1 %':>9}{'largest':>9}", end="")
    print(f"{'fitted':>8}{'held out':>9}{'<= 1 %':>8}{'<= 2 %':>8}{'RMSPE':>8}{'largest':>9}{'90 %':>6}")
    for device, cells in devices.items():
        for precision, one in cells.items():
            print(
                f"{device:13}{precision:10}{one['repeated_networks']:9}{one['repeat_within_0.1']:9.1%}"
                f"{one['repeat_largest']:9.3%}{one['fitted_networks']:8}{one['held_out_networks']:9}"
                f"{one['within_1']:8.1%}{one['within_2']:8.1%}{one['rmspe']:8.2%}{one['largest_error']:9.2%}"
                f"{one['interval_coverage']:6.2f}"
            )


def bench(device: str, folder: Path, *, quick: bool, seed: int) -> tuple[dict, dict]:
    tables = []
    for repeated in (False, True):
        device_stop(device, workspace=Workspace(folder))
        device_start(device, workspace=Workspace(folder))
        try:
            path, environment = measure(
                device,
                folder / ("second" if repeated else "first"),
                quick=quick,
                seed=seed,
                repeated=repeated,
            )
        finally:
            device_stop(device, workspace=Workspace(folder))
        tables.append(path)
    return judge(*tables), environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer networks")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "virtual_board.json")
    parser.add_argument("--seeds", type=int, default=1, help="the seed of the plans is one less")
    parser.add_argument("--device", action="append", choices=DEVICES)
    parser.add_argument("--workspace", type=Path, default=Path("runs") / "virtual_board")
    parser.add_argument("--judge", action="store_true", help="judge anew what the tables hold")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text()) if arguments.json.is_file() else {}
    devices, boards = known.get("devices", {}), known.get("boards", {})
    for device in arguments.device or DEVICES:
        folder = arguments.workspace / f"{'quick' if arguments.quick else 'full'}-{arguments.seeds - 1}"
        if arguments.judge:
            tables = [folder / one / "latency_tables" / f"{device}.sqlite" for one in ("first", "second")]
            devices[device] = judge(*tables)
        elif device not in devices:
            devices[device], boards[device] = bench(
                device, folder, quick=arguments.quick, seed=arguments.seeds - 1
            )
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps(
                {
                    "bench": "virtual_board",
                    "environment": provenance("numpy", "onnx", "scikit-learn"),
                    "boards": boards,
                    "summary": [
                        {
                            "device": device,
                            "precision": precision,
                            **{key: one for key, one in cell.items() if not isinstance(one, list)},
                        }
                        for device, cells in devices.items()
                        for precision, cell in cells.items()
                    ],
                    "devices": devices,
                },
                indent=1,
            )
        )
    show(devices)
    return 0


if __name__ == "__main__":
    sys.exit(main())
