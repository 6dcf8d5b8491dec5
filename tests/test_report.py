from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import chromium
import msgspec
import numpy as np
import pytest
from PIL import Image

from edgenas.errors import ArtifactError, TableError, UsageError
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.check_history import append
from edgenas.pipeline.report import read_run, report
from edgenas.quantization.schemes import Calibration, QuantizationScheme, replaced
from edgenas.records import (
    Candidate,
    CheckFinding,
    CheckResult,
    DonorShare,
    Environment,
    EpochRecord,
    FloatOperators,
    KernelPrediction,
    KernelTrace,
    LatencyStatistics,
    LayerSensitivity,
    NetworkLatency,
    NetworkPoint,
    Prediction,
    PredictionError,
    ProfileCell,
    ProfileResult,
    QuantizeResult,
    SchemeTrial,
    SearchResult,
    TableSummary,
    TensorType,
    TracedKernel,
    TrainResult,
    TransferSummary,
    ValidateResult,
    ValidationFinding,
)
from edgenas.reporting import (
    KernelRow,
    RunContents,
    TableContents,
    charts,
    render_prediction,
    render_run,
    render_table,
)
from edgenas.reporting.charts import MOST_POINTS, pareto_front, text
from edgenas.reporting.page import script_safe_json
from edgenas.reporting.parts import metric_value, milliseconds, moment, size
from edgenas.reporting.run_sections import run_command, run_page
from edgenas.reporting.schemes import spoken
from edgenas.workspace import Workspace

HOSTILE = "</script><img src=x onerror=window.hacked=1><b>\"'&"
ENVIRONMENT = Environment(
    architecture="x86_64",
    cpu_model="AMD EPYC",
    cpu_features=("avx2", "fma"),
    cores=2,
    memory_bytes=8 << 30,
    operating_system="Linux 6.1",
    python_version="3.11.7",
    runtime="onnxruntime",
    runtime_version="1.32.0",
    supported_ir_version=13,
    supported_opset=26,
    governor="performance",
    frequency_mhz=2450.0,
    load_1m=0.7,
)


def candidate(i: int, latency: float, accuracy: float, source: str = "predicted") -> Candidate:
    stages = {f"s{stage}.kernel": 3 + 2 * ((i >> stage) & 1) for stage in range(4)}
    return Candidate(
        candidate={
            "resolution": 32 + 8 * (i % 3),
            "width": 1.0,
            **stages,
            "precision": ["fp32", "int8"][i % 2],
        },
        accuracy=accuracy,
        accuracy_source="supernet",
        latency_ms={"local": latency},
        latency_source="measured" if source == "measured" else "predicted",
        macs=1_000_000 + 1000 * i,
        parameters=40_000 + i,
        feasible=latency <= 2.0,
    )


def search_result(count: int = 300) -> SearchResult:
    generator = np.random.default_rng(0)
    latency = generator.uniform(0.4, 3.0, count)
    accuracy = 0.98 - 0.12 / (0.5 + latency) - generator.uniform(0, 0.1, count)
    evaluated = [candidate(i, float(latency[i]), float(accuracy[i])) for i in range(count)]
    best_so_far, front = 0.0, []
    for one in sorted(evaluated, key=lambda c: c.latency_ms["local"]):
        if one.accuracy > best_so_far:
            best_so_far = one.accuracy
            front.append(one)
    best = max((one for one in front if one.feasible), key=lambda c: c.accuracy)
    return SearchResult(
        space="mobilenetv3-demo",
        devices=("local",),
        limits_ms=(2.0,),
        strategy="evolution",
        accuracy_source="supernet",
        seed=0,
        evaluations=count,
        elapsed_s=41.2,
        best=best,
        fastest=front[0],
        front=tuple(front),
        evaluated=tuple(evaluated),
    )


def quantize_result() -> QuantizeResult:
    def trial(
        scheme: str, latency: float | None, accuracy: float | None, verdict: Any, reason: str
    ) -> SchemeTrial:
        return SchemeTrial(
            scheme=scheme,
            latency_ms=latency,
            accuracy=accuracy,
            size_bytes=61_000,
            output_distance=0.04,
            verdict=verdict,
            reason=reason,
        )

    return QuantizeResult(
        device="local",
        output="model.onnx",
        int8_output="model-int8.onnx",
        scheme="u8s8 per channel",
        latency_ms=1.21,
        float_latency_ms=1.87,
        accuracy=0.962,
        float_accuracy=0.967,
        size_bytes=61_000,
        float_size_bytes=201_000,
        calibration_images=200,
        selection_images=400,
        tried=(
            trial("u8s8 per channel", 1.21, 0.962, "chosen", "most accurate of those faster than float"),
            trial("u8s8 per tensor", 1.19, 0.951, "kept", "faster, less accurate"),
            trial("u8u8", 1.6, 0.958, "kept", "slower and less accurate"),
            trial("s8s8", 2.4, 0.961, "rejected", "slower than float on this device"),
            trial("s8s8 " + HOSTILE, None, None, "failed", "the runtime refused it: " + HOSTILE),
        ),
        sensitivity=(
            LayerSensitivity(
                layer="stem", operators=2, squared_error=2e-4, float_ms=0.2, int8_ms=0.1, integer=True
            ),
            LayerSensitivity(
                layer="head " + HOSTILE, operators=1, squared_error=3e-2, float_ms=0.1, int8_ms=0.1,
                integer=False,
            ),
        ),
        stayed_float=(
            FloatOperators(op="Softmax", count=1, reason="no integer kernel", examples=(HOSTILE,)),
        ),
    )  # fmt: skip


def train_result(epochs: int) -> TrainResult:
    records = [
        EpochRecord(
            epoch=i,
            loss=2.2 * 0.8**i,
            elapsed_s=7.0 * i,
            accuracy={
                "largest": 1 - 0.6 * 0.75**i,
                "smallest": 1 - 0.7 * 0.8**i,
                "random": 1 - 0.65 * 0.78**i,
            },
        )
        for i in range(1, epochs + 1)
    ]
    return TrainResult(
        space="mobilenetv3-demo",
        data="digits",
        checkpoint="supernet.pt",
        epochs=tuple(records),
        validation_accuracy=0.95,
        elapsed_s=130.0,
    )


def prediction() -> Prediction:
    generator = np.random.default_rng(2)
    kernels = [
        KernelPrediction(
            name=f"s{i // 6}b{i % 6 // 3}/{part}_nchwc",
            layer=f"s{i // 6}b{i % 6 // 3}",
            kind=kind,
            latency_ms=float(generator.uniform(0.005, 0.09)),
            source="interpolated" if i % 9 == 4 else "measured",
        )
        for i in range(36)
        for part, kind in [
            [("expand", "Conv+Relu"), ("depthwise", "Conv"), ("project", "ReorderOutput")][i % 3]
        ]
    ]
    kernels[0] = msgspec.structs.replace(kernels[0], name=HOSTILE, layer="stem")
    total = sum(kernel.latency_ms for kernel in kernels) + 0.02
    return Prediction(
        model="model.onnx",
        device="local",
        runtime="onnxruntime",
        precision="int8",
        threads=1,
        latency_ms=total,
        interval_ms=(0.95 * total, 1.05 * total),
        overhead_ms=0.02,
        interpolated_share=0.1,
        kernels=tuple(kernels),
    )


def network_points(count: int = 60) -> tuple[NetworkPoint, ...]:
    generator = np.random.default_rng(3)
    measured = generator.uniform(0.4, 4.0, count)
    predicted = measured * generator.normal(1, 0.04, count)
    return tuple(
        NetworkPoint(
            name=f"mobilenetv3-demo-{i}",
            predicted_ms=float(p),
            low_ms=float(0.93 * p),
            high_ms=float(1.07 * p),
            measured_ms=float(m),
            held_out=i % 3 == 0,
            precision=["fp32", "int8"][i % 2],
        )
        for i, (m, p) in enumerate(zip(measured, predicted, strict=True))
    )


def validate_result() -> ValidateResult:
    return ValidateResult(
        model="model.onnx",
        device="local",
        verdict="pass",
        latency_ms=1.21,
        latency_p50_ms=1.24,
        latency_p90_ms=1.4,
        latency_p99_ms=1.9,
        latency_relative_halfwidth=0.004,
        accuracy=0.9644,
        reference_accuracy=0.9689,
        agreement=0.991,
        output_distance=0.041,
        size_bytes=61_000,
        peak_memory_bytes=74_000_000,
        load_ms=8.1,
        threads=1,
        environment=ENVIRONMENT,
        findings=(ValidationFinding(metric="latency_ms", value=1.21, limit=2.0, verdict="pass"),),
    )


def profile_result() -> ProfileResult:
    error = PredictionError(
        networks=20,
        within_5=0.8,
        within_10=0.98,
        rmspe=0.041,
        spearman=0.993,
        interval_coverage=0.92,
        repeat_within_5=0.85,
        repeat_within_10=0.99,
    )
    cells = [
        ProfileCell(
            space="mobilenetv3-demo",
            precision=precision,
            threads=1,
            networks=40,
            kernels=310,
            coverage=0.97,
            error=error if precision == "fp32" else None,
        )
        for precision in ("fp32", "int8")
    ]
    return ProfileResult(
        device="local",
        table="latency_tables/local.sqlite",
        threads=1,
        environment=ENVIRONMENT,
        measured_networks=60,
        reused_networks=20,
        failed_networks=0,
        device_seconds=88.0,
        elapsed_s=101.0,
        noise_floor=0.021,
        cells=tuple(cells),
    )


def run_records() -> dict[str, Any]:
    return {
        "run": {
            "name": f"digits {HOSTILE}",
            "device": "local",
            "latency_ms": 2.0,
            "data": "digits",
            "seed": 0,
        },
        "profile": profile_result(),
        "search": search_result(),
        "train": train_result(12),
        "final": train_result(20),
        "quantize": quantize_result(),
        "validate": validate_result(),
        "prediction": prediction(),
        "networks": network_points(),
    }


def write_run(folder: Path, records: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, record in records.items():
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(record))
    return folder


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    write_run(workspace.runs / "first", run_records())
    return report("first", workspace=workspace)


# --- what is written -------------------------------------------------------------------------------


def test_one_small_file_without_addresses(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert page_file.name == "report.html"
    assert page_file.stat().st_size < 6_000_000
    assert "default-src 'none'" in page
    assert "http://" not in page.replace('"http://www.w3.org/2000/svg"', "")  # a name of SVG, never fetched
    assert "https://" not in page


def test_nothing_from_a_model_becomes_markup(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "&lt;img src=x" in page
    assert text("<b>") == "&lt;b&gt;"
    assert json.loads(script_safe_json({"a": HOSTILE})) == {"a": HOSTILE}


def test_absent_records_are_left_out(tmp_path: Path) -> None:
    records = run_records()
    for kept in (["validate"], ["search", "prediction"], ["run"]):
        folder = write_run(tmp_path / kept[0], {name: records[name] for name in kept})
        page = report(folder, output=tmp_path / f"{kept[0]}.html").read_text(encoding="utf-8")
        assert ('id="validation"' in page) == ("validate" in kept)
        assert ('id="kernels"' in page) == ("prediction" in kept)
        assert 'id="schemes"' not in page


def test_a_search_that_found_nothing_says_so() -> None:
    failed = msgspec.structs.replace(search_result(5), best=None, front=())
    page = run_page(RunContents(name="x", search=failed))
    assert "None meets the limit" in page.sections[0].lead
    figure = pareto_front(failed, "local", 2.0)
    assert [trace["name"] for trace in figure["data"]] == ["evaluated"]


def test_unlabelled_schemes_are_drawn_by_their_distance() -> None:
    unlabelled = [msgspec.structs.replace(trial, accuracy=None) for trial in quantize_result().tried]
    result = msgspec.structs.replace(
        quantize_result(), accuracy=None, float_accuracy=None, tried=tuple(unlabelled)
    )
    page = render_run(RunContents(name="x", quantize=result), created_at="2026-11-23T00:00:00+00:00")
    assert "distance of the outputs to float" in page


def test_a_quantization_alone_says_what_it_came_to() -> None:
    page = run_page(RunContents(name="out.trials", quantize=quantize_result()))
    assert "won on" in page.summary
    assert "times as fast as float" in page.summary
    assert [fact.label for fact in page.facts] == ["latency", "accuracy on the device", "model size"]
    assert "reproduce" not in [section.key for section in page.sections], "nobody ran 'edgenas run'"
    assert page.sections[0].grids[0].rows[0][1] == "chosen", "the winner first"
    assert page.sections[0].grids[0].marked == 0


def test_the_front_of_the_schemes_and_the_sensitivity_are_drawn() -> None:
    drawn = charts.schemes(quantize_result())
    front = next(trace for trace in drawn["data"] if trace["name"] == "Pareto front")
    assert list(zip(front["x"], front["y"], strict=True)) == [(1.19, 95.1), (1.21, 96.2)]
    bars = charts.sensitivity(quantize_result())["data"][0]
    assert bars["customdata"] == ["int8", "float"]


def test_very_many_candidates_stay_small() -> None:
    result = search_result(9000)
    figure = pareto_front(result, "local", 2.0)
    assert len(figure["data"][0]["x"]) == MOST_POINTS
    assert len(render_run(RunContents(name="x", search=result), created_at="now")) < 6_000_000


def test_the_command_to_reproduce_is_quoted() -> None:
    settings = {
        "device": ["a", "b"],
        "latency_ms": [2.0, 20.5],
        "data": "my pictures; rm",
        "seed": 3,
        "name": "n",
    }
    assert run_command(settings) == (
        "edgenas run --device a --device b --latency-ms 2 --latency-ms 20.5 --data 'my pictures; rm' --seed 3"
    )


def test_a_sentence_says_what_came_out() -> None:
    found, quantized = validate_result(), quantize_result()
    page = run_page(RunContents(name="n", search=search_result(), validate=found, quantize=quantized))
    assert page.summary.startswith("The model takes 1.210 ms on local, within the limit, and 96.44 % of its")
    assert f"int8 ({quantized.scheme})" in page.summary
    float_won = msgspec.structs.replace(quantized, scheme="float")
    assert "Float won" in run_page(RunContents(name="n", validate=found, quantize=float_won)).summary
    assert "No model was validated" in run_page(RunContents(name="n")).summary


def test_metrics_have_the_unit_of_their_name() -> None:
    values = {
        "latency_p90_ms": 1.5,
        "size_bytes": 61_000,
        "limit.size_mb": 0.061,
        "accuracy": 0.9,
        "parameters": 7,
    }
    shown = [metric_value(name, value) for name, value in values.items()]
    assert shown == ["1.500 ms", "61 kB", "61 kB", "90.00 %", "7"]
    assert metric_value("accuracy", None) == "-"
    assert moment("2026-11-24T09:49:01.911+00:00") == "2026-11-24 09:49 UTC"
    assert moment("yesterday") == "yesterday"


def test_numbers_read_well() -> None:
    assert [milliseconds(v) for v in (None, 0.1234, 12.3456)] == ["-", "0.123 ms", "12.35 ms"]
    assert [size(v) for v in (None, 12, 61_000, 2_500_000, 8 << 30)] == [
        "-",
        "12 bytes",
        "61 kB",
        "2.5 MB",
        "8.59 GB",
    ]


# --- wrong use -------------------------------------------------------------------------------------


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match="one of them"):
        report(workspace=workspace)
    with pytest.raises(ArtifactError, match="no run 'second'") as caught:
        report("second", workspace=workspace)
    assert "edgenas demo" in caught.value.hint
    write_run(workspace.runs / "first", {"run": {}})
    with pytest.raises(ArtifactError, match="no run 'second'") as caught:
        report("second", workspace=workspace)
    assert "first" in caught.value.hint
    with pytest.raises(TableError, match="no latency table of 'rpi9'"):
        report(table="rpi9", workspace=workspace)
    (workspace.runs / "first" / "search.json").write_text('{"space": 3}')
    with pytest.raises(ArtifactError, match=r"search\.json"):
        report("first", workspace=workspace)
    assert read_run(write_run(tmp_path / "empty", {})).name == "empty"


# --- in a real browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    if chromium.BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    page = chromium.Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


def drawn(section: str) -> str:
    return f"document.querySelector('[data-figure={section}] .trace') !== null"


def hover_text(browser: chromium.Page, section: str) -> str:
    layer = f"document.querySelector('[data-figure={section}] .hoverlayer').textContent"
    browser.wait_for(layer)
    return browser.evaluate(layer)


def open_and_draw(browser: chromium.Page, path: Path, section: str = "front-0", **how: Any) -> None:
    browser.events.clear()
    browser.open(path, **how)
    browser.evaluate(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
    browser.wait_for(drawn(section))


def test_every_chart_draws_without_errors_or_requests(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    for section in ("front-0", "survival", "prediction", "kernels", "schemes", "train", "final"):
        browser.evaluate(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
        browser.wait_for(drawn(section))
    assert browser.problems() == []
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelector('.verdict').textContent") == "pass"
    assert "1.210 ms" in browser.evaluate("document.querySelector('header .tiles').textContent")
    assert HOSTILE in browser.evaluate("document.querySelector('h1').textContent")


@pytest.fixture(scope="module")
def prediction_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prediction") / "latency.html"
    transfer = TransferSummary(
        measured_networks=10, used=True, leave_one_out_rmspe=0.03, own_leave_one_out_rmspe=None,
        donors=(DonorShare(device=HOSTILE, runtime="openvino", threads=1, share=0.8),),
    )  # fmt: skip
    found = msgspec.structs.replace(prediction(), transfer=transfer)
    path.write_text(render_prediction(found, created_at="2026-11-24T12:00:00+00:00"))
    return path


def test_a_layer_is_the_sum_of_its_kernels() -> None:
    found = prediction()
    layers = found.layers()
    assert [one.layer for one in layers][:2] == ["stem", "s0b0"]
    assert sum(one.latency_ms for one in layers) == pytest.approx(found.latency_ms - found.overhead_ms)
    assert sum(one.kernels for one in layers) == len(found.kernels)
    assert all(0 <= one.measured_ms <= one.latency_ms for one in layers)
    bare = msgspec.structs.replace(found.kernels[1], layer="", name="/features/1/conv/Conv")
    assert msgspec.structs.replace(found, kernels=(bare,)).layers()[0].layer == "/features/1/conv"


@pytest.mark.parametrize("dark", [False, True])
def test_a_prediction_page_works_on_a_phone(
    browser: chromium.Page, prediction_file: Path, dark: bool
) -> None:
    for section in ("layers", "kernels"):
        open_and_draw(browser, prediction_file, section, width=390, height=844, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.problems() == [] and browser.evaluate("window.hacked") is None
    assert "cannot price" in browser.evaluate("document.getElementById('donors').textContent")


def test_hovering_a_layer_or_kernel_shows_its_parts(browser: chromium.Page, prediction_file: Path) -> None:
    for section, expected in (("layers", "kernels, "), ("kernels", "% of all kernels")):
        open_and_draw(browser, prediction_file, section)
        browser.hover(*browser.center(f"[data-figure={section}] .barlayer .trace .point path"))
        assert expected in hover_text(browser, section)


def test_hovering_a_candidate_shows_its_genes(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    best = read_run(page_file.parent).search.best
    browser.hover(*browser.center("[data-figure=front-0] .scatterlayer .trace:last-child .point"))
    shown = hover_text(browser, "front-0")
    assert f"{100 * best.accuracy:.2f} %" in shown
    assert f"{best.latency_ms['local']:.3f} ms" in shown
    assert f"resolution={best.candidate['resolution']}" in shown
    limit = browser.evaluate("document.querySelector('[data-figure=front-0] .annotation-text').textContent")
    assert limit == "limit 2 ms"


def test_hovering_a_kernel_shows_its_name_as_text(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file, "kernels")
    browser.hover(*browser.center("[data-figure=kernels] .barlayer .point path"))
    shown = hover_text(browser, "kernels")
    assert "onerror=window.hacked=1" in shown
    assert browser.evaluate("window.hacked") is None
    assert browser.problems() == []


def test_the_keys_walk_through_a_chart(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    candidates = sorted(one.latency_ms["local"] for one in read_run(page_file.parent).search.evaluated)
    browser.evaluate("document.querySelector('[data-figure=front-0]').focus({preventScroll: true})")
    for key, code, latency in (("Home", 36, candidates[0]), ("End", 35, candidates[-1])):
        browser.press(key, code)
        assert f"at {latency:.3f} ms" in hover_text(browser, "front-0")
    browser.press("Escape", 27)
    assert browser.evaluate("document.querySelector('[data-figure=front-0] .hoverlayer').textContent") == ""


def test_a_legend_hides_and_shows_and_the_mouse_zooms(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    chart = "[data-figure=front-0]"
    count = f"document.querySelectorAll('{chart} .scatterlayer .point').length"
    ticks = f"[...document.querySelectorAll('{chart} .xtick')].map((one) => one.textContent).join()"
    everything, wide = browser.evaluate(count), browser.evaluate(ticks)
    browser.click(f"{chart} .legend button")
    assert browser.evaluate(count) < everything
    browser.click(f"{chart} .legend button")
    assert browser.evaluate(count) == everything
    x, y = browser.center(f"{chart} svg.plot")
    for kind, dx in (("mousePressed", 0), ("mouseMoved", 60), ("mouseReleased", 60)):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", clickCount=1)
    assert browser.evaluate(ticks) != wide
    browser.click(f"{chart} .legend .reset")
    assert browser.evaluate(ticks) == wide
    assert browser.problems() == []


def test_thousands_of_candidates_are_one_shape_and_still_answer(
    browser: chromium.Page, tmp_path: Path
) -> None:
    records = {**run_records(), "search": search_result(900)}
    path = report(write_run(tmp_path / "runs" / "many", records), workspace=Workspace(tmp_path))
    open_and_draw(browser, path)
    chart = "[data-figure=front-0]"
    assert browser.evaluate(f"document.querySelectorAll('{chart} .points').length") == 1
    browser.evaluate(f"document.querySelector('{chart}').focus({{preventScroll: true}})")
    browser.press("Home", 36)
    fastest = min(one.latency_ms["local"] for one in records["search"].evaluated)
    assert f"at {fastest:.3f} ms" in hover_text(browser, "front-0")
    assert browser.problems() == []


def test_the_first_chart_is_there_when_the_page_is(browser: chromium.Page, page_file: Path) -> None:
    browser.open(page_file)
    # Drawn while the page was read, and so in the first frame that anybody sees.
    drawn_at = browser.evaluate("performance.getEntriesByName('first-charts')[0].startTime")
    assert drawn_at <= browser.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    later = "document.querySelector('[data-figure=train]').dataset.drawn"
    assert browser.evaluate(later) is None
    browser.evaluate("document.getElementById('train').scrollIntoView({behavior: 'instant'})")
    browser.wait_for(f"{later} === 'yes'")


def test_tables_unfold_and_sort_by_mouse_and_keyboard(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    browser.click("#kernels details summary")
    assert browser.evaluate("document.querySelector('#kernels details').open")
    browser.click("#kernels-table-2 th:nth-child(5) button")
    cells = "document.querySelectorAll('#kernels-table-2 td:nth-child(5)')"
    times = f"[...{cells}].map((cell) => parseFloat(cell.textContent))"
    found = browser.evaluate(times)
    assert found == sorted(found)
    browser.evaluate("document.querySelector('#kernels-table-2 th:nth-child(5) button').focus()")
    browser.press("Enter", 13)
    assert browser.evaluate(times) == sorted(found, reverse=True)
    browser.evaluate("document.querySelector('#schemes-table-1 th:nth-child(3) button').click()")
    last = browser.evaluate(
        "document.querySelector('#schemes-table-1 tr:last-child td:nth-child(3)').textContent"
    )
    assert last == "-"


def test_the_keyboard_reaches_the_content_first(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    browser.evaluate("window.scrollTo(0, 0)")
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "theme"
    browser.press("Enter", 13)
    assert browser.evaluate("document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling(
    browser: chromium.Page, page_file: Path, dark: bool, tmp_path: Path
) -> None:
    open_and_draw(browser, page_file, "prediction", width=390, height=844, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 22, 29)") == dark
    axis = browser.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert (axis == "rgb(231, 234, 240)") == dark
    browser.screenshot(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000


def test_the_colours_change_on_request(browser: chromium.Page, page_file: Path) -> None:
    open_and_draw(browser, page_file)
    browser.click("#theme")
    browser.click("#theme")
    assert browser.evaluate("document.documentElement.dataset.theme") == "dark"
    assert (
        browser.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        == "rgb(231, 234, 240)"
    )


def test_the_report_of_a_table(browser: chromium.Page, tmp_path: Path) -> None:
    contents = TableContents(
        summary=TableSummary(
            device=f"rpi4 {HOSTILE}",
            path="x.sqlite",
            schema_version=1,
            runtime="onnxruntime 1.32.0",
            kernels=40,
            networks=60,
            environments=1,
            runs=2,
            size_bytes=120_000,
            updated_at="2026-11-23T10:00:00",
        ),
        threads=1,
        environment=ENVIRONMENT.to_dict(),
        kernels=tuple(
            KernelRow(
                label=f"Conv {i}x3x3 {HOSTILE}",
                family=["Conv", "Pool", "Add"][i % 3],
                latency_ms=0.01 * i,
                networks=i,
            )
            for i in range(40)
        ),
        networks=network_points(),
        error=profile_result().cells[0].error,
    )
    path = tmp_path / "table.html"
    path.write_text(render_table(contents, created_at="now"), encoding="utf-8")
    open_and_draw(browser, path, "kernels")
    assert browser.problems() == []
    assert browser.evaluate("document.querySelectorAll('#kernels-table-1 tbody tr').length") == 40


def test_the_report_of_a_real_table_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    generator = np.random.default_rng(5)
    with LatencyTable.open(workspace.table_path("local"), create=True, device="local") as table:
        for i in range(24):
            kernels = tuple(traced_kernel(j, 8 + 8 * int(generator.integers(4))) for j in range(6))
            total = sum(kernel.latency_ms for kernel in kernels) * float(generator.normal(1.0, 0.01)) + 0.02
            role = "held-out" if i % 4 == 0 else "fit"
            table.add_network(
                NetworkRow(
                    model_sha256=f"{i:064x}", name=f"net-{i}", space="demo", precision="fp32", role=role
                )
            )
            trace = KernelTrace(
                model_sha256=f"{i:064x}",
                runtime="onnxruntime",
                runtime_version="1.32.0",
                threads=1,
                runs=40,
                run_latency_ms=total,
                kernels=kernels,
            )
            table.add_trace(trace, ENVIRONMENT)
            rounds = tuple(total * float(generator.normal(1, 0.003)) for _ in range(10))
            statistics = LatencyStatistics(
                latency_ms=total,
                latency_p50_ms=total,
                latency_p90_ms=total,
                latency_p99_ms=None,
                latency_relative_halfwidth=0.01,
                runs=10,
                rounds_ms=rounds,
            )
            measured = NetworkLatency(model_sha256=f"{i:064x}", threads=1, statistics=statistics)
            table.add_latency(measured, ENVIRONMENT)
    path = report(table="local", workspace=workspace)
    assert path == workspace.tables / "local.html"
    page = path.read_text(encoding="utf-8")
    assert "All 24 networks as a table" in page
    assert page.count('<td class="short">held out</td>') == 6


def traced_kernel(position: int, channels: int) -> TracedKernel:
    shape = (1, channels, 16, 16)
    return TracedKernel(
        name=f"s{position}/conv",
        layer=f"s{position}",
        kind="Conv",
        domain="",
        attributes={
            "kernel_shape": [3, 3],
            "strides": [1, 1],
            "pads": [1, 1, 1, 1],
            "group": 1,
            "dilations": [1, 1],
        },
        inputs=(
            TensorType(dtype="float", shape=shape),
            TensorType(dtype="float", shape=(channels, channels, 3, 3)),
        ),
        outputs=(TensorType(dtype="float", shape=shape),),
        latency_ms=0.0004 * channels**1.5,
    )


# --- the gate over time, and what is really on the screen -------------------------------------------

ACCENTS = {False: (31, 95, 191), True: (127, 176, 255)}
PAPERS = {False: (246, 245, 241), True: (18, 22, 29)}


def history(count: int = 24) -> tuple[CheckResult, ...]:
    """Results of two models; the gate failed once, for the size of the first."""
    results = []
    for i in range(count):
        latency = 1.2 - 0.01 * i
        size = 500_000 + 1000 * i + (40_000 if i == 15 else 0)
        findings = [
            CheckFinding(model="small", metric="size_bytes", baseline=500_000, value=size, limit=530_000,
                         verdict="fail" if i == 15 else "pass"),
            CheckFinding(model="small", metric="latency_ms", baseline=1.2, value=latency, limit=1.236,
                         verdict="pass", interval=(latency - 0.02, latency + 0.02), note=HOSTILE),
            CheckFinding(model=f"large {HOSTILE}", metric="latency_ms", baseline=None, value=None,
                         limit=None, verdict="incomparable", note="device was a, is b"),
        ]  # fmt: skip
        results.append(
            CheckResult(
                verdict="fail" if i == 15 else "incomparable",
                device="local",
                threads=1,
                baseline="ci/baseline.json",
                updated=False,
                findings=tuple(findings),
                elapsed_s=2.5,
                created_at=f"2026-10-{i + 1:02d}T12:00:00+00:00",
                commit=f"{i:040x}",
            )
        )
    return tuple(results)


@pytest.fixture(scope="module")
def gate_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    for result in history():
        append(folder / "history.jsonl", result)
    return report(checks=folder / "history.jsonl", workspace=Workspace(folder))


def pixels(browser: chromium.Page, selector: str, path: Path) -> np.ndarray:
    """What an element looks like: uint8 RGB (H, W, 3)."""
    browser.center(selector)
    box = browser.evaluate(
        f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
        "return [b.left, b.top, b.right, b.bottom]; })()"
    )
    browser.screenshot(path)
    return np.asarray(Image.open(path).convert("RGB").crop([round(max(edge, 0)) for edge in box]))


def share(image: np.ndarray, color: tuple[int, int, int]) -> float:
    """The share of pixels of a colour, give or take what smoothing does."""
    return float((np.abs(image.astype(int) - color).max(axis=2) < 12).mean())


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_trend_is_on_the_screen(
    browser: chromium.Page, gate_page: Path, tmp_path: Path, dark: bool, width: int
) -> None:
    browser.open(gate_page, width=width, dark=dark)
    browser.wait_for("document.documentElement.dataset.ready === 'yes'")
    for metric in ("latency_ms", "size_bytes"):
        chart = f"#trend-0-{metric} .chart"
        browser.center(chart)
        browser.wait_for(f"document.querySelector('{chart} .scatterlayer .point') !== null")
        image = pixels(browser, chart, tmp_path / "chart.png")
        assert image.shape[1] > 0.7 * width
        assert 0.002 < share(image, ACCENTS[dark]) < 0.2  # a line and its markers, no blot
        assert share(image, (26, 32, 42) if dark else (255, 255, 255)) > 0.7
        columns = (np.abs(image.astype(int) - ACCENTS[dark]).max(axis=2) < 12).any(axis=0)
        drawn = np.flatnonzero(columns)
        assert drawn.max() - drawn.min() > 0.5 * image.shape[1]  # from the first result to the last
    assert not browser.evaluate("document.querySelector('#trend-1-latency_ms') !== null")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert share(pixels(browser, "header", tmp_path / "header.png"), PAPERS[dark]) > 0.4
    assert browser.problems() == []


def test_a_failed_result_stands_out_and_hostile_notes_stay_text(
    browser: chromium.Page, gate_page: Path, tmp_path: Path
) -> None:
    browser.open(gate_page)
    browser.wait_for("document.documentElement.dataset.ready === 'yes'")
    chart = "#trend-0-size_bytes .chart"
    browser.center(chart)
    browser.wait_for(f"document.querySelector('{chart} .scatterlayer .point') !== null")
    assert share(pixels(browser, chart, tmp_path / "chart.png"), (198, 47, 61)) > 0.0005
    assert "failed 1 of them" in browser.evaluate("document.querySelector('#trend-0-size_bytes').innerText")
    assert browser.evaluate("window.hacked") is None
    assert browser.problems() == []


def test_an_empty_history_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no history"):
        report(checks=tmp_path / "none.jsonl", workspace=Workspace(tmp_path))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match="no result yet"):
        report(checks=tmp_path / "empty.jsonl", workspace=Workspace(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("float", "float"),
        ("u8s8-channel-minmax", "int8 (u8s8, per channel, whole ranges)"),
        ("s8s8-tensor-mse-mixed2.1553", "int8 (s8s8, per tensor, least-error ranges, 2 nodes in float)"),
        (
            "u8u8-channel-reduced-bias-x1.ab12",
            "int8 (u8u8, per channel, 7-bit weights, corrected biases, 1 node in float)",
        ),
    ],
)
def test_schemes_are_said_in_words(name: str, words: str) -> None:
    assert spoken(name) == words


def test_every_word_of_a_scheme_is_known() -> None:
    everything = QuantizationScheme(
        reduced_range=True, equalized=True, bias_corrected=True, refined_rounding=True,
        integer_sums=False, integer_gates=False,
    )  # fmt: skip
    for calibration in get_args(Calibration):
        name = replaced(everything, calibration=calibration).name
        assert len(spoken(name).split(", ")) == len(name.split("-"))
        assert not set(spoken(name).replace("(", "").replace(")", "").split(", ")) & set(name.split("-")[1:])
