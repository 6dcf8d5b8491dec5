from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgenas.device_profiles import load_profile
from edgenas.errors import (
    ArtifactError,
    BudgetNotMetError,
    DeviceUnreachableError,
    ModelError,
    UnknownKernelsError,
    UnknownNameError,
    UsageError,
)
from edgenas.latency_tables.exchange import export_table
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline import ab_test
from edgenas.pipeline.ab_test import (
    FEWEST_PASSES,
    FILLER_SIZE,
    LONGEST_S,
    PASS_S,
    PATIENCE,
    SLOWEST_S,
    judge,
    judged_passes,
    rounds_for,
    slowed,
)
from edgenas.pipeline.baseline import read_baseline, write_baseline
from edgenas.pipeline.check import check
from edgenas.pipeline.check_history import read_history
from edgenas.pipeline.ci_init import ci_init
from edgenas.pipeline.gate_findings import accuracy_drop, budget, floor, growth, worst
from edgenas.pipeline.gate_latency import MeasuredLatency
from edgenas.pipeline.gate_limits import Allowance, allowance_from, require_knowable
from edgenas.pipeline.gate_model import named_models
from edgenas.pipeline.skeleton import same_network, seeded_model, strip_weights, structure
from edgenas.progress import Task, Watcher, watched_by
from edgenas.records import CheckFinding, CheckResult, LatencyStatistics
from edgenas.reporting.gate import github_annotations, junit, markdown
from edgenas.workspace import Workspace, cache_folder


def network(
    channels: int = 16, layers: int = 3, seed: int = 0, elem_type: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    generator = np.random.default_rng(seed)
    nodes, weights, width, tensor = [], [], 3, "input"
    for i in range(layers):
        values = generator.normal(0, 0.2, (channels, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        width, tensor = channels, f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["output"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", elem_type, ["N", 3, 24, 24])],
        [helper.make_tensor_value_info("output", elem_type, ["N", channels, 1, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


# --- judging ---------------------------------------------------------------------------------------


def passes(
    ratio: float, noise: float, seed: int, count: int = 4
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rounds of two networks: drift that both share, noise of their own, a session's own bias."""
    generator = np.random.default_rng(seed)
    a, b = [], []
    for _ in range(count):
        drift = np.exp(generator.normal(0, 0.05, 12))
        bias = generator.normal(0, noise / 2)
        a.append(2.0 * drift * np.exp(generator.normal(0, noise, 12)))
        b.append(2.0 * ratio * drift * np.exp(bias + generator.normal(0, noise, 12)))
    return a, b


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, "pass"), (0.9, "pass"), (1.1, "fail"), (1.07, "fail")])
def test_shared_drift_does_not_hide_what_differs(ratio: float, expected: str) -> None:
    verdicts = [judge(*passes(ratio, 0.005, seed)).verdict(0.03, 0.0) for seed in range(40)]
    assert verdicts.count(expected) >= 39
    assert set(verdicts) <= {expected, "inconclusive"}


def test_too_much_noise_is_inconclusive_and_small_differences_are_allowed() -> None:
    verdicts = [judge(*passes(1.06, 0.1, seed)).verdict(0.03, 0.0) for seed in range(60)]
    assert verdicts.count("inconclusive") > 30
    assert "pass" not in verdicts
    assert judge(*passes(1.1, 0.005, 0)).verdict(0.03, floor_ms=0.5) == "pass"


def test_judging_twice_gives_the_same_interval() -> None:
    found = judge(*passes(1.05, 0.01, 3))
    assert found == judge(*passes(1.05, 0.01, 3))
    assert found.interval[0] <= found.ratio <= found.interval[1]


def test_counts_and_accuracy_have_limits_and_floors() -> None:
    assert growth("m", "size_bytes", 1000, 1900, share=0.01, floor=1024).verdict == "pass"
    assert growth("m", "size_bytes", 1_000_000, 1_020_000, share=0.01, floor=1024).verdict == "fail"
    assert accuracy_drop("m", 0.9, 0.891, 0.01).verdict == "pass"
    assert accuracy_drop("m", 0.9, 0.88, 0.01).verdict == "fail"
    assert worst(["pass", "inconclusive", "fail", "incomparable"]) == "fail"
    assert worst([]) == "pass"


# --- skeletons and the positive control ------------------------------------------------------------


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": np.full((1, 3, 24, 24), 0.5, np.float32)})


def test_a_skeleton_has_no_weights_and_runs_alike_every_time() -> None:
    model = network(channels=64, layers=4)
    skeleton = strip_weights(model)
    assert len(skeleton.SerializeToString()) < 0.02 * len(model.SerializeToString())
    first, again = (run(seeded_model(skeleton, role="old"))[0] for _ in range(2))
    assert first.shape == (1, 64, 1, 1)
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()
    seeded = seeded_model(skeleton, role="old")
    weights = [numpy_helper.to_array(tensor) for tensor in seeded.graph.initializer]
    assert weights[1].std() == pytest.approx(0.2, rel=0.05)
    assert structure(seeded) == structure(model) == (
        64 * 27 + 3 * 64 * 64 * 9, {"Conv": 4, "GlobalAveragePool": 1, "Relu": 4}
    )  # fmt: skip
    assert seeded.SerializeToString() != seeded_model(skeleton, role="new").SerializeToString()


def test_constants_and_subgraphs_lose_their_weights_too() -> None:
    model = network()
    weight = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))
    model.graph.doc_string = "secret"
    skeleton = strip_weights(model)
    assert not skeleton.graph.node[0].attribute[0].t.raw_data
    assert skeleton.graph.doc_string == ""
    assert structure(model)[0] == structure(network())[0]
    assert run(seeded_model(skeleton, role="old"))[0].shape == (1, 16, 1, 1)
    assert same_network(skeleton, strip_weights(model))
    assert not same_network(skeleton, strip_weights(network(layers=4)))


def test_a_skeleton_keeps_scales_and_zero_points() -> None:
    model = network(channels=40, layers=1)
    scales = np.linspace(0.01, 0.02, 40).astype(np.float32)
    quantized = np.random.default_rng(0).integers(-100, 100, (40, 3, 3, 3)).astype(np.int8)
    model.graph.initializer.pop()
    for values, name in ((quantized, "q"), (scales, "scales"), (np.zeros(40, np.int8), "zeros")):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scales", "zeros"], ["w0"], axis=0))
    seeded = seeded_model(strip_weights(model), role="old")
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in seeded.graph.initializer}
    assert np.array_equal(kept["scales"], scales)
    assert not np.array_equal(kept["q"], quantized)
    assert (kept["q"].dtype, kept["q"].min() >= -100) == (np.int8, True)
    assert run(seeded)[0].shape == (1, 40, 1, 1)


def test_the_control_does_its_extra_work_after_optimisation(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        slowed(network(), 20).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert [node.op_type for node in optimized.graph.node].count("MatMul") == 20
    plain, control = run(network()), run(slowed(network(), 20))
    assert np.allclose(plain[0], control[0])
    assert control[1].shape == (1, FILLER_SIZE)
    with pytest.raises(ModelError, match="float input"):
        slowed(network(elem_type=TensorProto.FLOAT16), 3)


# --- the gate on a real device ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an accepted baseline of one model."""
    folder = tmp_path_factory.mktemp("gate")
    model = save(network(), folder / "net.onnx")
    result = check(
        [model], baseline=folder / "ci" / "baseline.json", device="local", threads=1, update=True,
        workspace=Workspace(folder),
    )  # fmt: skip
    assert (result.updated, result.verdict) == (True, "pass")
    return folder


def gate(folder: Path, model: Path, **options: object) -> dict[str, CheckFinding]:
    result = check(
        [model], baseline=folder / "ci" / "baseline.json", threads=1, workspace=Workspace(folder), **options
    )
    assert result.verdict == worst([finding.verdict for finding in result.findings])
    return {finding.metric: finding for finding in result.findings}


def test_retrained_weights_are_no_change(accepted: Path, tmp_path: Path) -> None:
    same = save(network(seed=5), tmp_path / "net.onnx")
    found = gate(
        accepted,
        same,
        junit_to=tmp_path / "j.xml",
        markdown_to=tmp_path / "m.md",
        json_to=tmp_path / "r.json",
    )
    assert {found[name].verdict for name in ("size_bytes", "parameters", "peak_memory_bytes")} == {"pass"}
    assert found["latency_ms"].verdict != "fail"
    assert "positive control" in found["latency_ms"].note
    assert ElementTree.parse(tmp_path / "j.xml").getroot().tag == "testsuites"
    assert "| net | latency_ms |" in (tmp_path / "m.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "r.json").read_text())["device"] == "local"


def test_a_larger_and_slower_model_fails(accepted: Path, tmp_path: Path) -> None:
    found = gate(accepted, save(network(channels=48, layers=4), tmp_path / "net.onnx"))
    assert {found[name].verdict for name in ("size_bytes", "parameters", "latency_ms")} == {"fail"}
    assert (found["ops.Conv"].baseline, found["ops.Conv"].value) == (3, 4)
    assert found["ops.Conv"].verdict == "pass"


def test_another_thread_count_is_incomparable(accepted: Path) -> None:
    result = check(
        [accepted / "net.onnx"],
        baseline=accepted / "ci" / "baseline.json",
        threads=2,
        workspace=Workspace(accepted),
    )
    assert result.verdict == "incomparable"
    assert "threads was 1, is 2" in github_annotations(result)


def test_absolute_limits_hold_and_keep_a_baseline_from_being_accepted(accepted: Path) -> None:
    before = (accepted / "ci" / "baseline.json").read_bytes()
    found = gate(accepted, accepted / "net.onnx", size_mb=0.001, latency_ms=1e-4, memory_mb=1.0)
    limited = ("limit.size_mb", "limit.latency_ms", "limit.memory_mb")
    assert {found[name].verdict for name in limited} == {"fail"}
    quantiles = [found[f"latency_p{number}_ms"] for number in (50, 90, 99)]
    assert all(one.value and one.baseline for one in quantiles)
    assert quantiles[0].value <= quantiles[1].value <= quantiles[2].value
    with pytest.raises(BudgetNotMetError, match=r"no baseline: limit.size_mb"):
        gate(accepted, accepted / "net.onnx", size_mb=0.001, update=True)
    assert (accepted / "ci" / "baseline.json").read_bytes() == before


def test_a_limited_tail_is_held_to_the_baseline_too(accepted: Path) -> None:
    model = accepted / "net.onnx"
    found = gate(accepted, model, latency_ms=1000.0, latency_statistic="p99", max_slower=0.9)
    assert found["limit.latency_p99_ms"].verdict == "pass"
    assert found["limit.latency_p99_ms"].interval is not None
    assert "positive control" in found["latency_p99_ms"].note
    assert found["latency_p99_ms"].limit == pytest.approx(1.9 * found["latency_p99_ms"].baseline)
    assert "positive control" in found["latency_ms"].note
    assert "for information" in found["latency_p50_ms"].note


def test_a_quantile_of_each_pass_is_judged_like_rounds_are() -> None:
    def one(rounds_ms: list[float], p90_ms: float) -> LatencyStatistics:
        return LatencyStatistics(
            latency_ms=1.0, latency_p50_ms=1.0, latency_p90_ms=p90_ms, latency_p99_ms=None,
            latency_relative_halfwidth=0.0, runs=60, rounds_ms=tuple(rounds_ms),
        )  # fmt: skip

    noise = np.random.default_rng(0).normal(0, 0.003, (8, 3))
    calm = [1.0, 1.001, 0.999, 1.0]
    passes = [[one(calm, 1.1 + a), one(calm, 1.32 + b), one(calm, 1.6 + c)] for a, b, c in noise]
    tail, body = judged_passes(passes, "p90"), judged_passes(passes, "repeatable")
    assert tail.found.verdict(0.03, 0.0) == tail.control.verdict(0.03, 0.0) == "fail"
    assert tail.found.ratio == pytest.approx(1.2, rel=0.02)
    assert tail.decided(0.03, 0.0)
    assert body.found.verdict(0.03, 0.0) == "pass"


def test_slow_models_get_fewer_rounds_and_a_quantile_enough_of_them() -> None:
    found = [rounds_for(ms, ("repeatable",)) for ms in (0.1, 10.0, 50.0, 100.0, 500.0, 2000.0)]
    planned = [(one.number, one.runs) for one in found]
    assert planned == [(12, None), (12, None), (8, None), (12, 1), (3, 1), (2, 1)]
    assert found[0].limit_s == PATIENCE * PASS_S  # loading and one slow round must not end a fast pass
    assert found[5].limit_s == pytest.approx(PATIENCE * 2 * 3 * 2.0)
    for ms, runs in ((1.0, 5), (50.0, 3), (300.0, 1)):
        assert rounds_for(ms, ("repeatable", "p99")).limit_s is None
        assert runs * rounds_for(ms, ("repeatable", "p99")).number >= 100
        assert runs * rounds_for(ms, ("repeatable", "p90")).number >= 10


def test_the_runs_of_a_slow_models_gate_take_less_than_a_minute() -> None:
    """Where the device is left alone, and up to .6 s a run where every round has to be made again."""
    with connect(load_profile("local", Workspace())) as agent:
        source = MeasuredLatency(agent, 1, Allowance())
    rough, warm_up = 2 * 4, 3
    for latency_s in (0.1, 0.15, 0.3, 0.6, 0.9):
        planned = rounds_for(1e3 * latency_s, ("repeatable",))
        alone = latency_s * (source._runs_today(1e3 * latency_s) + source._runs_before(1e3 * latency_s))
        rest = latency_s * (rough + 2 * warm_up)
        one_pass = 3 * latency_s * (2 + planned.number)
        assert planned.limit_s is not None
        for pass_s, alone_s in ((one_pass, alone), (planned.limit_s, 1.25 * alone)):
            passes = FEWEST_PASSES
            while pass_s * (passes + 1) < LONGEST_S:
                passes += 1
            assert pass_s * FEWEST_PASSES < SLOWEST_S
            if latency_s < 0.9 or pass_s == one_pass:
                assert rest + alone_s + passes * pass_s < 60.0, latency_s


def test_a_model_too_slow_for_three_passes_is_inconclusive() -> None:
    """Two passes never decide, however clear they look."""
    calm = [np.full(4, 1000.0)] * 2
    tested = ab_test.Tested(found=judge(calm, calm), control=judge(calm, [2 * one for one in calm]), passes=2)
    with connect(load_profile("local", Workspace())) as agent:
        source = MeasuredLatency(agent, 1, Allowance())
    finding = source._finding("slow", "latency_ms", tested)
    assert finding.verdict == "inconclusive" and "2 of 3 passes" in finding.note
    assert source._finding("slow", "latency_ms", replace(tested, passes=3)).verdict == "pass"


def test_names_are_checked_before_anything_is_measured(accepted: Path, tmp_path: Path) -> None:
    renamed = save(network(seed=9), tmp_path / "other.onnx")
    with pytest.raises(UnknownNameError, match="known: net") as caught:
        gate(accepted, renamed)
    assert "it is 'net' under another name" in caught.value.hint
    twin = save(network(), tmp_path / "a" / "other.onnx")
    with pytest.raises(UsageError, match="two models are named 'other'"):
        check([renamed, twin], baseline=tmp_path / "b.json")
    assert named_models([renamed, f"twin={twin}"]) == {"other": renamed, "twin": twin}


def test_limits_come_from_the_configuration_and_verdicts_can_be_tolerated(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "edgenas.toml").write_text('[check]\nmax_slower = 0.05\ntolerate = ["incomparable"]\n')
    found = allowance_from({"max_larger": 0.5, "size_mb": None}, (), workspace)
    assert (found.max_slower, found.max_larger, found.size_mb) == (0.05, 0.5, None)
    assert found.accepts("incomparable")
    assert not found.accepts("inconclusive")
    (tmp_path / "edgenas.toml").write_text("[check]\nmax_slowr = 0.05\n")
    with pytest.raises(UsageError, match="max_slowr"):
        allowance_from({}, (), workspace)
    with pytest.raises(UsageError, match="it is a share"):
        allowance_from({"max_drop": -1.0}, (), Workspace(tmp_path / "none"))


def test_a_limit_of_what_cannot_be_known_is_refused() -> None:
    tail, memory = Allowance(latency_statistic="p90"), Allowance(memory_mb=1.0)
    require_knowable(tail, "measured")
    require_knowable(memory, "virtual")
    for allowance, source in ((tail, "virtual"), (tail, "predicted"), (memory, "predicted")):
        with pytest.raises(UsageError, match="quantiles"):
            require_knowable(allowance, source)


def test_a_limit_within_the_interval_of_what_was_measured_is_inconclusive() -> None:
    assert budget("m", "latency_ms", 1.0, 1.01, relative_halfwidth=0.02).verdict == "inconclusive"
    assert budget("m", "latency_ms", 1.0, 1.03, relative_halfwidth=0.02).verdict == "pass"
    assert budget("m", "latency_ms", 1.0, 0.97, relative_halfwidth=0.02).verdict == "fail"
    assert floor("m", "accuracy", 0.8, 0.9).verdict == "fail"
    assert floor("m", "accuracy", 0.9, 0.9).verdict == "pass"


# --- without a device ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small exported table and a baseline that was predicted from it."""
    folder = tmp_path_factory.mktemp("predicted")
    files = [save(network(channels, layers), folder / "fit" / f"{channels}-{layers}.onnx")
             for channels in (8, 16) for layers in (2, 3)]  # fmt: skip
    with (
        connect(load_profile("local", Workspace(folder))) as agent,
        LatencyTable.open(folder / "t.sqlite", create=True, device="local") as table,
    ):
        shipped = {agent.ship(file): file for file in files}
        for latency in agent.compare(list(shipped), threads=1, min_rounds=4, max_rounds=4):
            sha256 = latency.model_sha256
            table.add_network(NetworkRow(
                model_sha256=sha256, name=shipped[sha256].stem, space="models", precision="fp32", role="fit"
            ))  # fmt: skip
            table.add_trace(agent.trace(sha256, threads=1, runs=3), agent.environment)
            table.add_latency(latency, agent.environment)
        export_table(table, folder / "ci" / "local.json", "json")
    model = save(network(), folder / "net.onnx")
    result = check(
        [model], baseline=folder / "ci" / "baseline.json", table=folder / "ci" / "local.json", update=True,
        workspace=Workspace(folder),
    )  # fmt: skip
    assert (result.latency_source, result.verdict) == ("predicted", "pass")
    return folder


def test_a_prediction_needs_no_device_and_repeats_itself(predicted: Path, tmp_path: Path) -> None:
    before = (predicted / "ci" / "local.json").read_bytes()
    assert read_baseline(predicted / "ci" / "baseline.json").table == "local.json"
    same = save(network(seed=3), tmp_path / "net.onnx")
    found, again = (gate(predicted, same)["latency_ms"] for _ in range(2))
    assert (found.verdict, found.value) == ("pass", found.baseline)
    assert found == again
    slower = gate(predicted, save(network(layers=4), tmp_path / "net.onnx"))["latency_ms"]
    assert slower.verdict == "fail"
    assert slower.value > slower.limit > slower.baseline
    assert (predicted / "ci" / "local.json").read_bytes() == before


def test_what_a_table_cannot_price_is_an_error_and_never_zero(predicted: Path, tmp_path: Path) -> None:
    model = network()
    model.graph.node.insert(2, helper.make_node("Erf", ["r0"], ["e0"]))
    model.graph.node[3].input[0] = "e0"
    with pytest.raises(UnknownKernelsError, match="Erf"):
        gate(predicted, save(model, tmp_path / "net.onnx"))
    with pytest.raises(UsageError, match="neither memory nor quantiles"):
        gate(predicted, predicted / "net.onnx", memory_mb=1.0)
    with pytest.raises(UsageError, match="either measured or predicted"):
        gate(predicted, predicted / "net.onnx", table=Path("t.json"), device="local")


def test_results_are_kept_one_after_the_other(predicted: Path) -> None:
    history = predicted / "history.jsonl"
    for _ in range(2):
        gate(predicted, predicted / "net.onnx", history=history)
    with history.open("ab") as stream:
        stream.write(b'{"verdict": "pa')  # a killed process
    found = read_history(history)
    assert [one.verdict for one in found] == ["pass", "pass"]
    assert all(one.created_at and one.latency_source == "predicted" for one in found)
    gate(predicted, predicted / "net.onnx", history=history)
    assert len(read_history(history)) == 3
    history.write_bytes(b"{}\n")
    with pytest.raises(ArtifactError, match="line 1"):
        read_history(history)


@pytest.fixture(scope="module")
def damaged(predicted: Path) -> dict[str, tuple[str, str]]:
    """Baselines that must not be believed, and what is said about them."""
    good = (predicted / "ci" / "baseline.json").read_text()
    content = json.loads(good)
    content["models"][0]["size_bytes"] += 1
    failed = msgspec.structs.replace(
        read_baseline(predicted / "ci" / "baseline.json"), verdict="inconclusive"
    )
    write_baseline(predicted / "failed.json", failed)
    return {
        "edited": (json.dumps(content), "was edited"),
        "cut": (good[:200], "damaged"),
        "empty": ("", "damaged"),
        "failed": ((predicted / "failed.json").read_text(), "its own gate"),
        "newer": (json.dumps({"schema_version": 99}), "version 99"),
    }


def test_a_missing_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no baseline at") as caught:
        check([save(network(), tmp_path / "net.onnx")], baseline=tmp_path / "baseline.json")
    assert "--update" in caught.value.hint


@pytest.mark.parametrize("kind", ["edited", "cut", "empty", "failed", "newer"])
def test_a_bad_baseline_is_refused_and_an_update_replaces_all_but_a_newer_one(
    damaged: dict[str, tuple[str, str]], predicted: Path, tmp_path: Path, kind: str
) -> None:
    text, message = damaged[kind]
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        check([predicted / "net.onnx"], baseline=path, workspace=Workspace(tmp_path))
    assert path.read_text() == text
    table = predicted / "ci" / "local.json"
    if kind == "newer":
        with pytest.raises(ArtifactError, match="version 99"):
            check([predicted / "net.onnx"], baseline=path, table=table, update=True)
        assert path.read_text() == text
    else:
        check([predicted / "net.onnx"], baseline=path, table=table, update=True)
        assert read_baseline(path).models[0].name == "net"


def test_an_update_keeps_how_latency_is_known_and_the_other_models(predicted: Path, tmp_path: Path) -> None:
    path = tmp_path / "ci" / "baseline.json"
    path.parent.mkdir()
    (path.parent / "local.json").write_bytes((predicted / "ci" / "local.json").read_bytes())
    path.write_bytes((predicted / "ci" / "baseline.json").read_bytes())
    other = save(network(layers=2), tmp_path / "other.onnx")
    result = check([other], baseline=path, update=True, workspace=Workspace(tmp_path))
    assert (result.latency_source, result.device) == ("predicted", "local")
    baseline = read_baseline(path)
    assert [model.name for model in baseline.models] == ["net", "other"]
    assert baseline.table == "local.json"
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="is of local with 1 threads, predicted, not of"):
        check([other], baseline=path, device="local", update=True, workspace=Workspace(tmp_path))
    assert path.read_bytes() == before


def test_a_baseline_from_before_a_record_had_a_field_is_still_believed(
    predicted: Path, tmp_path: Path
) -> None:
    values = json.loads((predicted / "ci" / "baseline.json").read_text())
    del values["environment"]["virtual_clock"]
    values["checksum"] = ""
    plain = msgspec.json.encode(values)
    values["checksum"] = hashlib.sha256(plain).hexdigest()
    (tmp_path / "older.json").write_text(json.dumps(values, indent=1))
    assert read_baseline(tmp_path / "older.json").models[0].name == "net"


def test_another_model_under_the_name_fails_and_says_what_differs(predicted: Path, tmp_path: Path) -> None:
    found = gate(predicted, save(network(channels=8, layers=4), tmp_path / "net.onnx"))
    assert {name for name in found if name.startswith("ops.")} == {"ops.Conv", "ops.Relu"}
    assert found["latency_ms"].verdict in ("pass", "fail")


def test_writing_what_was_read_changes_nothing(predicted: Path, tmp_path: Path) -> None:
    good = predicted / "ci" / "baseline.json"
    write_baseline(tmp_path / "again.json", read_baseline(good))
    assert (tmp_path / "again.json").read_bytes() == good.read_bytes()


def test_a_device_that_is_away_is_an_error_and_changes_nothing(predicted: Path, tmp_path: Path) -> None:
    profiles = tmp_path / "device_profiles"
    profiles.mkdir()
    (profiles / "gone.toml").write_text(
        'description = "a board that is switched off"\nconnection = "ssh"\nhost = "edgenas-nobody.invalid"\n'
        'runtime = "onnxruntime"\n'
    )
    path = tmp_path / "baseline.json"
    before = path.write_bytes((predicted / "ci" / "baseline.json").read_bytes()), path.read_bytes()
    for update in (False, True):
        with pytest.raises(DeviceUnreachableError):
            check(
                [predicted / "net.onnx"],
                baseline=path,
                device="gone",
                update=update,
                workspace=Workspace(tmp_path),
            )
    assert path.read_bytes() == before[1]


def test_a_busy_device_is_waited_for_by_name(accepted: Path) -> None:
    """Somebody else measures: the gate says who, waits, and then gives its verdict."""
    said: list[str] = []
    lock = cache_folder() / "agent" / "measuring.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        held.write("the night build")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)

        class Listener(Watcher):
            def track(self, description: str, total: float | None) -> contextlib.nullcontext[Task]:
                return contextlib.nullcontext(Task())

            def warn(self, message: str) -> None:
                self.say(message)

            def say(self, message: str) -> None:
                said.append(message)
                fcntl.flock(held, fcntl.LOCK_UN)

        with watched_by(Listener()):
            found = gate(accepted, accepted / "net.onnx")
    assert found["latency_ms"].verdict != "fail"
    assert any("the night build" in message for message in said)


def test_an_update_that_is_killed_leaves_the_old_baseline(predicted: Path, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes((predicted / "ci" / "baseline.json").read_bytes())
    before = path.read_bytes()
    command = [sys.executable, "-m", "edgenas", "check", predicted / "net.onnx", "--baseline", path,
               "--device", "local", "--update"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    assert any("Measuring net" in line for line in process.stderr)  # until it has begun
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["baseline.json"]


# --- where people look -----------------------------------------------------------------------------


def test_names_from_models_break_nothing() -> None:
    hostile = "a|b`<script>\n::error::"

    def finding(model: str, metric: str, verdict: str, *values: float | None, note: str = "") -> CheckFinding:
        was, now, limit = values
        return CheckFinding(
            model=model, metric=metric, baseline=was, value=now, limit=limit, verdict=verdict, note=note
        )

    findings = (
        finding(hostile, "latency_ms", "fail", 1.0, 1.2, 1.03, note="n\n"),
        finding(hostile, "size_bytes", "inconclusive", 1, 2, None),
        finding("m", "accuracy", "pass", 0.9, 0.91, 0.89),
    )
    result = CheckResult(
        verdict="fail", device="local", threads=1, baseline="b.json", updated=False, findings=findings
    )
    text = markdown(result)
    assert "<script>" not in text
    assert "- ❌ a\\|b'&lt;script>" in text
    assert text.count("\n- ") == 2  # what did not pass stands above the table
    assert all(line.count("|") - line.count("\\|") == 8 for line in text.splitlines() if line.startswith("|"))
    suites = {suite.get("name"): suite for suite in ElementTree.fromstring(junit(result))}
    assert suites["m"].get("failures") == "0"
    assert sorted((s.get("failures"), s.get("errors")) for s in suites.values()) == [("0", "0"), ("1", "1")]
    assert len(github_annotations(result).splitlines()) == 2


# --- in somebody's repository ----------------------------------------------------------------------


def test_ci_init_writes_a_script_that_reports_and_keeps_the_exit_code(tmp_path: Path) -> None:
    result = ci_init(workspace=Workspace(tmp_path))
    assert result.files == ("action.yml", "gate.sh")
    assert "--update" in result.next_step
    called = tmp_path / "called"
    fake = tmp_path / "bin" / "edgenas"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >{called}\necho verdict >gate-results/summary.md\nexit 3\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    done = subprocess.run(["ci/gate.sh", "a.onnx", "b c.onnx"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 3
    assert called.read_text().startswith("check a.onnx b c.onnx --baseline ci/baseline.json --markdown")
    assert (tmp_path / "summary").read_text() == "verdict\n"


def test_ci_init_replaces_nothing_unasked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    ci_init(workspace=workspace)
    ci_init(workspace=workspace)
    (tmp_path / "ci" / "gate.sh").write_text("mine")
    with pytest.raises(UsageError, match="differs"):
        ci_init(workspace=workspace)
    assert (tmp_path / "ci" / "gate.sh").read_text() == "mine"
    ci_init(workspace=workspace, force=True)
    assert (tmp_path / "ci" / "gate.sh").read_text().startswith("#!")


# --- this repository's own gate --------------------------------------------------------------------

OWN = Path(__file__).parents[1] / "ci"


def test_our_own_copy_of_the_gate_is_what_ci_init_writes() -> None:
    for source in (OWN.parent / "edgenas" / "pipeline" / "ci_files").iterdir():
        assert (OWN / source.name).read_bytes() == source.read_bytes()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the committed table has the kernels of x86")
def test_our_own_models_pass_and_a_larger_one_does_not(tmp_path: Path) -> None:
    names = [model.name for model in read_baseline(OWN / "baseline.json").models]
    subprocess.run([sys.executable, OWN / "models.py", tmp_path], check=True)
    files = [tmp_path / f"{name}.onnx" for name in names]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    result = check(files, baseline=OWN / "baseline.json", workspace=Workspace(tmp_path))
    assert (result.verdict, result.latency_source) == ("pass", "predicted")
    swapped = f"mobilenetv3-int8={tmp_path / 'mobilenetv3-fp32.onnx'}"
    result = check([swapped], baseline=OWN / "baseline.json", workspace=Workspace(tmp_path))
    failed = {finding.metric for finding in result.findings if finding.verdict == "fail"}
    assert {"size_bytes", "latency_ms"} <= failed
