"""profile on this machine: killed at any moment it loses at most the measurement in flight."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from edgenas.device_profiles import load_profile
from edgenas.errors import ModelError, TableError, UnknownKernelsError, UsageError
from edgenas.latency_tables.integrity import verify
from edgenas.latency_tables.profile_networks.operator_tour import STOPS
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import Agent, connect
from edgenas.pipeline import profile_plan
from edgenas.pipeline.predict import predict
from edgenas.pipeline.profile import profile
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import (
    Target,
    interleaved,
    plan_by_default,
    plan_kernels,
    plan_models,
    plan_space,
)
from edgenas.records import NetworkLatency, Prediction
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

TARGET = Target(opset=17, ir_version=8, int8_scheme="u8s8")
CODE = """
import sys
from edgenas.latency_tables.profile_networks.operator_tour import STOPS
from edgenas.pipeline import profile_plan
from edgenas.pipeline.predict import predict
from edgenas.pipeline.profile import profile
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.workspace import Workspace
profile_plan._PICKED = profile_plan._FITTED = {"fp32": 12, "int8": 12}
profile(
    device="local", space=("mobilenetv3-demo",), precision=("fp32",), threads=1,
    workspace=Workspace(sys.argv[1]),
)
"""


@pytest.fixture
def small_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_plan, "_PICKED", {"fp32": 12, "int8": 12})
    monkeypatch.setattr(profile_plan, "_FITTED", {"fp32": 12, "int8": 12})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    space = get_space("mobilenetv3-demo")
    path = tmp_path / "mine.onnx"
    onnx.save(build_onnx(space.network(space.smallest()), batch=None, precision=False), path)
    return path


def rows(workspace: Workspace) -> Counter[tuple[str, int]]:
    """How often each network was measured in each pass."""
    with LatencyTable.open(workspace.table_path("local")) as table:
        return Counter(
            (row.model_sha256, row.pass_number)
            for fingerprint, threads in table.configurations()
            for row in table.latencies(fingerprint=fingerprint, threads=threads)
        )


# --- plans -----------------------------------------------------------------------------------------


def test_a_plan_follows_from_space_precision_and_seed(small_plans: None) -> None:
    space = get_space("mobilenetv3-demo")
    first, again, other = (plan_space(space, "int8", TARGET, seed=seed) for seed in (3, 3, 4))
    assert [one.recipe() for one in first] == [one.recipe() for one in again]
    assert [one.recipe() for one in first] != [one.recipe() for one in other]
    assert len({one.recipe() for one in first}) == len(first)
    assert Counter(one.role for one in first) == {"fit": 12, "held-out": 3}


def test_another_version_of_the_builder_makes_other_networks(
    small_plans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipes() -> set[str]:
        return {one.recipe() for one in plan_space(get_space("mobilenetv3-demo"), "fp32", TARGET, seed=0)}

    before = recipes()
    monkeypatch.setattr(profile_plan, "BUILDER_VERSION", profile_plan.BUILDER_VERSION + 1)
    assert not before & recipes()


def test_float_plans_are_float_and_int8_plans_mix(small_plans: None) -> None:
    space = get_space("mobilenetv3-demo")

    def precisions(one: object) -> set[str]:
        return {layer.precision for layer in space.network(np.array(one.genome)).layers}  # type: ignore[attr-defined]

    assert all(precisions(one) == {"fp32"} for one in plan_space(space, "fp32", TARGET, seed=0))
    mixed = [precisions(one) for one in plan_space(space, "int8", TARGET, seed=0)]
    assert {"int8"} in mixed and {"int8", "fp32"} in mixed


def test_a_time_limit_cuts_all_plans_alike() -> None:
    plans = [plan_kernels([precision], TARGET, seed=0) for precision in ("fp32", "int8")]
    half = interleaved(plans)[: sum(map(len, plans)) // 2]
    shares = [
        sum(one.precision == p for one in half) / len(plan)
        for p, plan in zip(("fp32", "int8"), plans, strict=True)
    ]
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)


def test_every_family_is_measured_before_anything_is_measured_in_depth() -> None:
    kernels = plan_kernels(["fp32", "int8"], TARGET, seed=0)
    space = plan_space(get_space("mobilenetv3-demo"), "fp32", TARGET, seed=0)
    plan = plan_by_default(kernels, [space])
    assert len(plan) == len(kernels) + round(0.4 * len(space))
    toured = {one.name for one in plan[: 2 * len(STOPS) + 60]}
    assert {
        f"kernels-{precision}-{name.lower()}" for name, _ in STOPS for precision in ("fp32", "int8")
    } <= toured


# --- models that users bring -----------------------------------------------------------------------


def test_only_the_batch_may_be_dynamic(tmp_path: Path, model: Path) -> None:
    loaded = onnx.load(model)
    loaded.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    bad = tmp_path / "bad.onnx"
    onnx.save(loaded, bad)
    with pytest.raises(ModelError, match=r"dynamic dimension 2 \('height'\)") as caught:
        plan_models([bad])
    assert "make_dynamic_shape_fixed --dim_param height" in caught.value.hint
    fixed = plan_models([model])[0].model()
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("content", [b"", b"not an onnx model", b"\x08\x07\x12"])
def test_a_broken_model_is_an_error_before_anything_is_measured(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        profile(device="local", model=(path,), workspace=Workspace(tmp_path))
    assert not (tmp_path / "latency_tables").exists()


def test_a_time_limit_must_be_above_zero(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="time limit"):
        profile(device="local", time_limit_s=0, workspace=Workspace(tmp_path))


def test_an_int8_model_is_filed_as_int8(tmp_path: Path, model: Path) -> None:
    space = get_space("mobilenetv3-demo")
    genome = space.smallest()
    for index, choice in enumerate(space.choices):
        if choice.name.endswith("precision"):
            genome[index] = choice.options.index("int8")
    integers = tmp_path / "mine-int8.onnx"
    onnx.save(build_onnx(space.network(genome)), integers)
    planned = plan_models([model, integers])
    assert [one.precision for one in planned] == ["fp32", "int8"]
    assert [one.row("sha").precision for one in planned] == ["fp32", "int8"]


# --- measuring -------------------------------------------------------------------------------------


def test_profile_measures_once_and_says_what_it_found(tmp_path: Path, small_plans: None, model: Path) -> None:
    workspace = Workspace(tmp_path)
    arguments = {"space": ("mobilenetv3-demo",), "precision": ("fp32",), "threads": 1, "workspace": workspace}
    first = profile(device="local", model=(model,), **arguments)
    assert first.failed_networks == 0 and first.measured_networks == 16 and first.reused_networks == 0
    space, models = first.cells
    assert (space.space, space.networks, models.space, models.networks) == (
        "mobilenetv3-demo",
        15,
        "models",
        1,
    )
    assert space.error is not None and space.error.networks == 3
    again = profile(device="local", model=(model,), **arguments)
    assert (again.measured_networks, again.reused_networks) == (0, 16)
    assert set(rows(workspace).values()) == {1}
    assert verify(workspace.table_path("local"), device="local").intact


def test_a_model_that_could_not_be_predicted_can_after_its_profile(tmp_path: Path, small_plans: None) -> None:
    workspace = Workspace(tmp_path)
    profile(device="local", space=("mobilenetv3-demo",), precision=("fp32",), threads=1, workspace=workspace)
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 8, 16, 16]) for name in ("input", "output")]
    node = onnx.helper.make_node("LRN", ["input"], ["output"], size=3)
    graph = onnx.helper.make_graph([node], "odd", values[:1], values[1:])
    path = tmp_path / "odd.onnx"
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    with pytest.raises(UnknownKernelsError, match="1 kernel: LRN") as raised:
        predict(path, device="local", workspace=workspace)
    assert raised.value.hint.endswith(f"edgenas profile --device local --model {path}")
    profile(device="local", model=(path,), threads=1, workspace=workspace)
    assert predict(path, device="local", workspace=workspace).interpolated_share == 0


def test_a_fixed_batch_is_measured_as_it_is_and_known_from_batch_one(tmp_path: Path) -> None:
    """The batch is part of the kernels' shapes: what was measured for one batch is no price of another."""
    space, workspace = get_space("mobilenetv3-demo"), Workspace(tmp_path)
    arguments = {"threads": 1, "workspace": workspace}
    paths = {batch: tmp_path / f"batch-{batch}.onnx" for batch in (1, 4)}
    for batch, path in paths.items():
        onnx.save(build_onnx(space.network(space.smallest()), batch=batch, precision=False), path)
    profile(device="local", model=(paths[1],), **arguments)
    known, guessed = (predict(path, device="local", **arguments) for path in paths.values())
    assert known.interpolated_share == 0.0 and guessed.interpolated_share == 1.0
    assert {kernel.source for kernel in guessed.kernels} == {"interpolated"}
    assert guessed.latency_ms > 1.5 * known.latency_ms  # counted in what the kernels do, not in time
    assert relative_width(guessed) > 2 * relative_width(known)
    profile(device="local", model=(paths[4],), **arguments)
    again, measured = (predict(path, device="local", **arguments) for path in paths.values())
    assert again.interpolated_share == measured.interpolated_share == 0.0
    assert relative_width(measured) < relative_width(guessed) / 2
    with LatencyTable.open(workspace.table_path("local")) as table:
        batches = {spec.inputs[0].shape[0] for spec in table.kernels().values() if spec.kind == "Conv"}
    assert batches == {1, 4}


def relative_width(prediction: Prediction) -> float:
    low, high = prediction.interval_ms
    return (high - low) / prediction.latency_ms


def test_a_killed_profile_goes_on_where_it_stopped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    for _ in range(3):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        waited_for = sum(rows(workspace).values()) if workspace.table_path("local").exists() else 0
        _wait_for_rows(workspace, waited_for + 1, process)
        time.sleep(float(rng.uniform(0, 0.2)))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert verify(workspace.table_path("local"), device="local").intact
    subprocess.run(command, check=True, timeout=120)
    counted = rows(workspace)
    planned = [key for key in counted if key[1] < 2]  # a third pass follows where the first two differ
    assert len(planned) == 30 and set(counted.values()) == {1}


def test_two_profiles_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two whole processes begin one table together; one network is in both plans."""
    space, generator = get_space("mobilenetv3-demo"), np.random.default_rng(0)
    paths = [tmp_path / f"{number}.onnx" for number in range(5)]
    for path, genome in zip(paths, space.sample(generator, len(paths)), strict=True):
        onnx.save(build_onnx(space.network(genome), precision=False), path)
    shas = [
        hashlib.sha256(plan_models([path])[0].model().SerializeToString(deterministic=True)).hexdigest()
        for path in paths
    ]
    plans = [paths[:3], paths[2:]]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "edgenas", "profile", "--device", "local", "--threads", "1", "--quiet"]
            + [argument for path in plan for argument in ("--model", str(path))],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for plan in plans
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    workspace = Workspace(tmp_path)
    found = rows(workspace)
    for number, sha in enumerate(shas):
        counts = {found[sha, of_pass] for of_pass in (0, 1)}
        assert counts == {1} or (number == 2 and counts <= {1, 2})
    with LatencyTable.open(workspace.table_path("local")) as table:
        assert table.summary().runs == 2
        assert set(table.networks()) == set(shas)
        traced = {
            trace.model_sha256
            for fingerprint, threads in table.configurations()
            for trace in table.traces(fingerprint=fingerprint, threads=threads)
        }
    assert traced == set(shas)
    assert verify(workspace.table_path("local"), device="local").intact


@pytest.mark.parametrize(
    ("crashed", "times", "found"), [(True, 1, (1, 0, 0)), (True, 2, (0, 0, 1)), (False, 1, (0, 0, 1))]
)
def test_a_crash_is_tried_once_more_and_failures_are_remembered(
    tmp_path: Path, model: Path, crashed: bool, times: int, found: tuple[int, int, int]
) -> None:
    workspace = Workspace(tmp_path)
    (planned,) = plan_models([model])
    content = planned.model().SerializeToString(deterministic=True)
    sha = hashlib.sha256(content).hexdigest()
    bad = NetworkLatency(model_sha256=sha, threads=1, error="ended by SIGKILL", crashed=crashed)
    path = workspace.table_path("local")
    with connect(load_profile("local", workspace)) as agent, LatencyTable.open(path, create=True) as table:
        table.add_network(planned.row(sha))
        for number in range(2):
            for _ in range(times):
                table.add_latency(bad, agent.environment, pass_number=number)
        again = Measuring(agent, table, 1, None, np.random.default_rng(0))
        again.measure([planned])
    assert (again.measured, again.reused, again.failed([planned])) == found


def test_what_a_slow_device_measured_is_measured_again(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(agent: Agent, *arguments: Any, **options: Any) -> Iterator[NetworkLatency]:
        for found in measured(agent, *arguments, **options):
            assert found.statistics is not None
            slower = msgspec.structs.replace(found.statistics, pace_ms=next(paces_ms))
            yield msgspec.structs.replace(found, statistics=slower)

    measured, told, paces_ms = Agent.compare, list[str](), iter([0.2, 0.1, 0.1])
    monkeypatch.setattr(Agent, "compare", compare)
    monkeypatch.setattr("edgenas.pipeline.profile_measuring.warn", told.append)
    workspace = Workspace(tmp_path)
    profile(device="local", model=[model], threads=1, workspace=workspace)
    assert sorted(number for _, number in rows(workspace)) == [0, 1, 2]
    assert [message for message in told if message.startswith("in 1 of 3 measurements the threads")]


@pytest.mark.parametrize("disturbed", [0, 4])
def test_other_work_on_the_device_is_told(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, disturbed: int
) -> None:
    def compare(agent: Agent, *arguments: Any, **options: Any) -> Iterator[NetworkLatency]:
        for found in measured(agent, *arguments, **options):
            yield msgspec.structs.replace(found, disturbed_rounds=disturbed)

    measured, told = Agent.compare, list[str]()
    monkeypatch.setattr(Agent, "compare", compare)
    monkeypatch.setattr("edgenas.pipeline.profile_measuring.warn", told.append)
    profile(device="local", model=[model], threads=1, workspace=Workspace(tmp_path))
    assert any("other work on 'local' disturbed" in message for message in told) is (disturbed > 0)


def _wait_for_rows(workspace: Workspace, count: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "it ended before it could be killed"
        with contextlib.suppress(TableError):  # the file is there a moment before its schema
            if workspace.table_path("local").exists() and sum(rows(workspace).values()) >= count:
                return
        time.sleep(0.1)
    raise AssertionError(f"{count} rows were waited for")


def test_a_default_profile_ends_by_itself_and_goes_on_from_there(
    tmp_path: Path, small_plans: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(measuring: Measuring) -> bool:
        assert measuring.end is not None  # nobody asked for a limit
        return measuring.measured >= 10

    monkeypatch.setattr(Measuring, "_time_is_up", over)
    workspace = Workspace(tmp_path)
    first, again = (
        profile(device="local", precision=("fp32",), threads=1, workspace=workspace) for _ in range(2)
    )
    assert first.measured_networks == again.measured_networks == again.reused_networks == 10
    assert first.cells[0].space == "kernels"
