"""Kernel keys, the store, the regressors, the predictor and compiled spaces, on synthetic devices."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.errors import TableError, UnknownKernelsError
from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.covering import cover
from edgenas.latency_tables.database import Database
from edgenas.latency_tables.evaluation import cross_validated, held_out_error, noise_floor
from edgenas.latency_tables.integrity import verify
from edgenas.latency_tables.kernels import (
    KernelSpec,
    canonical_spec,
    family_of,
    footprint_bytes,
    kernel_class,
    macs_of,
    spec_of,
)
from edgenas.latency_tables.layers import describe_layer
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.profile_networks.architectures import FAMILIES, architecture
from edgenas.latency_tables.profile_networks.kernel_networks import kernel_network
from edgenas.latency_tables.profile_networks.operator_tour import STOPS, tour_network
from edgenas.latency_tables.regression import ShapeRegressor
from edgenas.latency_tables.relevance import most_likely
from edgenas.latency_tables.rows import NetworkRow, is_slow, usual_pace_ms
from edgenas.latency_tables.saved_predictor import fitted, predictors_folder
from edgenas.latency_tables.schema import SCHEMA_VERSION
from edgenas.latency_tables.strides import alignment_of, stretch_of
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.templates import LayerTemplates
from edgenas.records import (
    Environment,
    KernelTrace,
    LatencyStatistics,
    NetworkLatency,
    TensorType,
    TracedKernel,
)
from edgenas.search_spaces import get_space

ENVIRONMENT = Environment(
    architecture="x86_64", cpu_model="synthetic", cpu_features=("avx2",), cores=2, memory_bytes=1 << 32,
    operating_system="Linux", python_version="3.11", runtime="onnxruntime", runtime_version="1.0",
    supported_ir_version=10, supported_opset=21,
)  # fmt: skip
CALL_MS, OVERHEAD_MS, PROFILER_MS = 0.002, 0.01, 0.0015
FETCHED_MS = 1.0  # a megabyte


def traced(
    part: str, layer: str, shape_in: tuple[int, ...], shape_out: tuple[int, ...], **fields: object
) -> TracedKernel:
    """A kernel of the synthetic runtime, without its time."""
    kind = str(fields.pop("kind", "Conv"))
    attributes = {name: value for name, value in fields.items() if name != "weight"}
    weight = fields.get("weight")
    inputs = [TensorType(dtype="float", shape=shape_in)]
    if weight is not None:
        inputs.append(TensorType(dtype="float", shape=weight))  # type: ignore[arg-type]
    return TracedKernel(
        name=f"{layer}/{part}_nchwc", layer=layer, kind=kind,
        domain="com.microsoft.nchwc", attributes=attributes,
        inputs=tuple(inputs), outputs=(TensorType(dtype="float", shape=shape_out),), latency_ms=0.0,
    )  # fmt: skip


def kernels_of(placed: object) -> list[TracedKernel]:
    """What a synthetic runtime makes of one layer: a kernel a part, with its activation fused."""
    found, shapes = [], {"input": tuple(placed.input_shape)}  # type: ignore[attr-defined]
    for part in placed.layer.parts():  # type: ignore[attr-defined]
        source = shapes[part.inputs[0]]
        shapes[part.name] = target = tuple(part.output_shape(source))
        one, two = (1, *source), (1, *target)
        kind, layer = type(part).__name__, placed.layer.name  # type: ignore[attr-defined]
        if kind == "Conv":
            weight = (part.out_channels, part.in_channels // part.groups, part.kernel, part.kernel)
            found.append(traced(part.name, layer, one, two, weight=weight, group=part.groups,
                                kernel_shape=[part.kernel] * 2, strides=[part.stride] * 2,
                                activation=part.activation))  # fmt: skip
        else:
            found.append(traced(part.name, layer, one, two, kind=kind))
    return found


def in_integers(kernel: TracedKernel) -> TracedKernel:
    """The 8-bit form of a convolution."""
    types = {
        side: tuple(TensorType(dtype="uint8", shape=tensor.shape) for tensor in getattr(kernel, side))
        for side in ("inputs", "outputs")
    }
    return msgspec.structs.replace(kernel, kind="QLinearConv", domain="", **types)


def plain_ms(kernel: TracedKernel) -> float:
    """What a kernel costs on the synthetic device."""
    spec = spec_of(kernel)
    work = macs_of(spec) / (2e7 if "group" in spec.attributes and spec.attributes["group"] == 1 else 5e6)
    moved = sum(math.prod(tensor.shape) for tensor in (*spec.inputs, *spec.outputs)) / 4e6
    return CALL_MS + work + moved


def fill(
    table: LatencyTable,
    space_name: str,
    count: int,
    *,
    noise: float = 0.003,
    seed: int = 0,
    cache_mb: float = math.inf,
    depthwise: float = 1.0,
    profiler_noise: float = 0.02,
    integers: bool = False,
    unexplained: float = 0.0,
    unexplained_ms: float = 0.0,
    picked: Callable[[float], bool] = lambda _: False,
) -> np.ndarray:
    """Measures random float networks of a space on the synthetic device.

    What a network touches beyond ``cache_mb`` is fetched anew in every run. ``depthwise`` is how many
    times as long its depthwise convolutions take, ``profiler_noise`` how far its profiler is off, relative.
    With ``integers`` all convolutions are of 8 bits. ``unexplained`` is how far whole networks are off,
    relative, in all of their rounds, ``unexplained_ms`` the same in ms. ``picked`` tells by a network's
    true latency whether its row says so; those are measured without what is unexplained.
    """

    def true_ms(kernel: TracedKernel) -> float:
        slower = depthwise if kernel_class(spec_of(kernel)).startswith("depthwise") else 1.0
        return slower * plain_ms(kernel)

    space, rng = get_space(space_name), np.random.default_rng(seed)
    genomes = space.sample(rng, count)
    for gene, choice in enumerate(space.choices):
        if choice.name.endswith("precision"):
            genomes[:, gene] = choice.options.index("fp32")
    genomes = space.canonical(genomes)
    table.begin_run("synthetic")
    for index, genome in enumerate(genomes):
        placed = space.placed(genome)
        kernels = [kernel for one in placed for kernel in kernels_of(one)]
        if integers:
            kernels = [in_integers(kernel) if kernel.kind == "Conv" else kernel for kernel in kernels]
        touched_mb = sum(footprint_bytes(spec_of(kernel)) for kernel in kernels) / 1e6
        truth = OVERHEAD_MS + sum(map(true_ms, kernels)) + FETCHED_MS * max(0.0, touched_mb - cache_mb)
        is_picked = picked(truth)
        sha = f"{seed}-{index}"
        table.add_network(NetworkRow(
            model_sha256=sha, name=sha, space=space_name, precision="int8" if integers else "fp32",
            role="held-out" if index % 5 == 4 else "fit", genome=tuple(genome.tolist()),
            layers=tuple((one.layer.name, describe_layer(one).to_json()) for one in placed),
            facts={"picked": is_picked},
        ))  # fmt: skip
        seen = tuple(
            TracedKernel(**{**{f: getattr(k, f) for f in k.__struct_fields__},
                            "latency_ms": round((true_ms(k) + PROFILER_MS) * float(factor), 3)})
            for k, factor in zip(kernels, np.exp(rng.normal(0, profiler_noise, len(kernels))), strict=True)
        )  # fmt: skip
        table.add_trace(trace_of(sha, seen), ENVIRONMENT)
        truth += 0.0 if is_picked else float(rng.normal(0, unexplained * truth + unexplained_ms))
        rounds = tuple(float(truth * x) for x in rng.normal(1, noise, 10))
        table.add_latency(
            NetworkLatency(model_sha256=sha, threads=1, statistics=statistics(rounds)), ENVIRONMENT
        )
    return genomes


def trace_of(sha: str, kernels: tuple[TracedKernel, ...]) -> KernelTrace:
    return KernelTrace(model_sha256=sha, runtime="onnxruntime", runtime_version="1.0", threads=1, runs=40,
                       run_latency_ms=1.0, kernels=kernels)  # fmt: skip


def statistics(rounds: tuple[float, ...]) -> LatencyStatistics:
    middle = float(np.median(rounds))
    return LatencyStatistics(latency_ms=middle, latency_p50_ms=middle, latency_p90_ms=max(rounds),
                             latency_p99_ms=None, latency_relative_halfwidth=0.01, runs=len(rounds),
                             rounds_ms=rounds)  # fmt: skip


def test_what_a_slow_device_measured_does_not_count(tmp_path: Path) -> None:
    """Two networks were measured at two paces; of a third nothing but a slow row is known."""
    kernel = traced("conv", "s1b0", (1, 8, 4, 4), (1, 8, 4, 4))
    measured_ms = {"a": [(1.0, 0.1), (1.8, 0.17)], "b": [(3.6, 0.17), (2.0, 0.11)], "c": [(9.0, 0.17)]}
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        table.begin_run("paces")
        for name, passes in measured_ms.items():
            table.add_network(NetworkRow(
                model_sha256=name, name=name, space="s", precision="fp32", role="fit"
            ))  # fmt: skip
            table.add_trace(trace_of(name, (kernel,)), ENVIRONMENT)
            for number, (latency_ms, pace_ms) in enumerate(passes):
                found = msgspec.structs.replace(statistics((latency_ms,) * 4), pace_ms=pace_ms)
                latency = NetworkLatency(model_sha256=name, threads=1, statistics=found)
                table.add_latency(latency, ENVIRONMENT, pass_number=number)
        networks = observe(table).networks
    assert {one.network.name: one.latency_ms for one in networks} == {"a": 1.0, "b": 2.0, "c": 9.0}


@pytest.mark.parametrize(("fast", "slow", "left_out"), [(6, 94, 0), (30, 70, 70), (1, 1, 1), (0, 5, 0)])
def test_a_pace_is_usual_that_a_quarter_kept(fast: int, slow: int, left_out: int) -> None:
    paces_ms = [0.1] * fast + [0.12] * slow
    usual_ms = usual_pace_ms([None, *paces_ms])
    assert sum(is_slow(pace_ms, usual_ms) for pace_ms in paces_ms) == left_out
    assert not is_slow(None, usual_ms) and not is_slow(0.1, usual_pace_ms([None]))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    table = LatencyTable.open(tmp_path_factory.mktemp("tables") / "synthetic.sqlite", create=True)
    fill(table, "mobilenetv3-demo", 70)
    return table


@pytest.fixture(scope="module")
def predictor(measured: LatencyTable) -> LatencyPredictor:
    return LatencyPredictor.fit(measured)


@pytest.mark.parametrize(("virtual", "noise"), [(False, 0.05), (True, 0.0002)])
def test_few_rounds_are_known_well_on_a_virtual_clock_only(
    tmp_path: Path, virtual: bool, noise: float
) -> None:
    environment = msgspec.structs.replace(ENVIRONMENT, virtual_clock=virtual)
    kernel = traced("conv", "s1b0", (1, 8, 4, 4), (1, 8, 4, 4))
    row = NetworkRow(model_sha256="a", name="a", space="s", precision="fp32", role="fit")
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        table.add_network(row)
        table.add_trace(trace_of("a", (kernel,)), environment)
        latency = NetworkLatency(model_sha256="a", threads=1, statistics=statistics((1.0, 1.0, 1.001)))
        table.add_latency(latency, environment)
        observations = observe(table)
        assert observations.networks[0].relative_noise == noise
        assert observations.virtual_clock is table.summary().virtual_clock is virtual


# --- keys ------------------------------------------------------------------------------------------


def test_keys_ignore_names_order_and_hints() -> None:
    first = traced("conv", "s1b0", (1, 8, 4, 4), (1, 8, 4, 4), group=1, strides=[1, 1], auto_pad="NOTSET")
    second = traced("other", "s9", (1, 8, 4, 4), (1, 8, 4, 4), strides=[1, 1], group=1, execTimeMcs="17")
    assert spec_of(first).key() == spec_of(second).key()


SAME = ((1, 8, 4, 4), (1, 8, 4, 4))
WAYS_TO_SAY_IT: dict[str, list[dict[str, Any]]] = {
    "Conv": [
        {"group": 1, "kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"},
        {"pads": [1, 1, 1, 1]},
    ],
    "MaxPool": [
        {"kernel_shape": [3, 3], "ceil_mode": 1, "storage_order": 0, "pads": [0, 0, 1, 1]},
        {"kernel_shape": [3, 3]},
    ],
    "ConvTranspose": [{"output_padding": [1, 1], "group": 1}, {}],
    "Gemm": [{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, {"transB": 1}],
    "LayerNormalization": [{"axis": 3}, {"axis": -1, "epsilon": 1e-6}, {}],
    "BatchNormalization": [{"epsilon": 1e-3, "momentum": 0.9, "training_mode": 0}, {}],
    "Softmax": [{"axis": -3}, {"axis": 1}],
}


@pytest.mark.parametrize("kind", WAYS_TO_SAY_IT)
def test_kernels_are_equal_however_a_model_says_it(kind: str) -> None:
    """An exporter may leave out what is the default, and another one may write it down."""
    said = [
        msgspec.structs.replace(traced("n", "s", *SAME, weight=(8, 8, 3, 3), **attributes), kind=kind)
        for attributes in WAYS_TO_SAY_IT[kind]
    ]
    specs = [spec_of(kernel) for kernel in said]
    assert len({spec.key() for spec in specs}) == 1
    assert all(canonical_spec(spec) is spec for spec in specs)
    other = {"kernel_shape": [3, 3], "strides": [2, 2], "axis": 2}
    assert spec_of(msgspec.structs.replace(said[0], attributes=other)).key() != specs[0].key()


def test_padding_on_one_side_is_another_kernel() -> None:
    symmetric, causal = ([2, 2, 2, 2], [0, 0, 4, 4])
    keys = {
        spec_of(traced("n", "s", *SAME, weight=(8, 1, 5, 5), group=8, pads=pads)).key()
        for pads in (symmetric, causal)
    }
    assert len(keys) == 2


def test_what_was_folded_into_a_kernel_of_openvino_is_no_part_of_it() -> None:
    """Batch norm that the exporter folded and batch norm that the runtime folds end as the same kernel."""
    weight = {"kernel_shape": [3, 3], "strides": [2, 2], "group": 1}
    padded = {"pads_begin": [0, 0], "pads_end": [1, 1], "dilations": [1, 1]}
    ways: list[dict[str, object]] = [
        {"fused": ["BatchNormInference", "Relu"], **weight},
        {"fused": ["Convolution", "Add", "Relu"], **weight, **padded},
        {"fused": ["Convolution", "Relu"], **weight, **padded},
    ]

    def key(attributes: dict[str, object]) -> str:
        return spec_of(traced("n", "s", *SAME, kind="Convolution", weight=(8, 8, 3, 3), **attributes)).key()

    assert len({key(attributes) for attributes in ways}) == 1
    assert key({**ways[1], "fused": ["Convolution", "Add", "Swish"]}) != key(ways[1])
    assert key({**ways[1], "pads_end": [4, 4]}) != key(ways[1])


def plain(
    kind: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], **attributes: object
) -> KernelSpec:
    """A kernel of floats without weights."""
    return KernelSpec(
        kind=kind, layout="", attributes=attributes,
        inputs=tuple(TensorType(dtype="float", shape=shape) for shape in inputs),
        outputs=(TensorType(dtype="float", shape=output),),
    )  # fmt: skip


MAP = (1, 8, 6, 5)


@pytest.mark.parametrize(
    ("spec", "stretch"),
    [
        (plain("Add", [MAP, MAP], MAP), 240),
        (plain("Mul", [MAP, (8, 1, 1)], MAP), 30),
        (plain("Mul", [MAP, (1, 8, 1, 1)], MAP), 30),
        (plain("Add", [(1, 7, 9), (9,)], (1, 7, 9)), 9),
        (plain("Mul", [MAP, ()], MAP), 240),
        (plain("Relu", [MAP], MAP), 240),
        (plain("Transpose", [MAP], (1, 6, 5, 8), perm=[0, 2, 3, 1]), 1),
        (plain("Transpose", [(1, 2, 4, 6, 5)], (1, 4, 2, 6, 5), perm=[0, 2, 1, 3, 4]), 30),
        (plain("Concat", [MAP, MAP], (1, 16, 6, 5), axis=1), 240),
        (plain("Concat", [MAP, MAP], (1, 8, 6, 10), axis=3), 5),
        (plain("Slice", [MAP, (1,)], (1, 4, 6, 5)), 120),
        (plain("Slice", [MAP, (1,)], (1, 8, 6, 2)), 2),
    ],
)
def test_kernels_work_in_stretches(spec: KernelSpec, stretch: int) -> None:
    assert stretch_of(spec) == stretch


def test_lines_that_are_pages_apart_share_their_place_in_a_cache() -> None:
    def alignment(side: int) -> float:
        before, after = (1, 8, side, side), (1, side, side, 8)
        return alignment_of(plain("Transpose", [before], after, perm=[0, 2, 3, 1]))

    assert [alignment(side) for side in (7, 28, 32, 64)] == [0.0, 0.0, 6.0, 6.0]
    assert alignment(24) == 2.0  # 24 * 24 * 4 bytes are nine times 256


SIDES = st.lists(st.integers(1, 512), min_size=4, max_size=4)


@given(SIDES, SIDES)
def test_keys_differ_exactly_with_shapes(left: list[int], right: list[int]) -> None:
    specs = [spec_of(traced("conv", "a", tuple(shape), tuple(shape))) for shape in (left, right)]
    assert (specs[0].key() == specs[1].key()) == (left == right)


def test_families_tell_depthwise_from_dense_and_pointwise() -> None:
    def family(group: int, kernel: int) -> str:
        return family_of(
            spec_of(traced("c", "a", (1, 32, 8, 8), (1, 32, 8, 8), group=group, kernel_shape=[kernel] * 2))
        )

    names = [family(1, 1), family(1, 3), family(32, 3), family(4, 3)]
    assert [name.split("/")[1] for name in names] == ["pointwise", "dense", "depthwise", "grouped"]


def test_macs_of_a_convolution_and_a_product() -> None:
    conv = spec_of(traced("c", "a", (1, 8, 10, 10), (1, 16, 10, 10), group=1, kernel_shape=[3, 3]))
    assert macs_of(conv) == 16 * 8 * 9 * 100
    product = KernelSpec(kind="MatMul", layout="", attributes={},
                         inputs=(TensorType(dtype="float", shape=(4, 6)),),
                         outputs=(TensorType(dtype="float", shape=(4, 5)),))  # fmt: skip
    assert macs_of(product) == 4 * 5 * 6


# --- store -----------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(measured: LatencyTable) -> None:
    networks, fingerprint = measured.networks(), ENVIRONMENT.fingerprint()
    assert len(networks) == 70
    assert networks["0-0"].layers[0][0] == "stem"
    trace = measured.trace_of("0-3", fingerprint=fingerprint, threads=1)
    assert trace is not None and trace.kernels[0].layer == "stem"
    assert measured.configurations() == [(fingerprint, 1)]
    assert measured.latest_environment() == ENVIRONMENT
    summary = measured.summary()
    assert (summary.networks, summary.environments, summary.runs) == (70, 1, 1)
    assert verify(measured.path, device="synthetic").intact


@pytest.mark.parametrize(("measured_anew", "meant"), [(2, 1), (1, 0)])
def test_what_was_measured_in_todays_way_is_meant_once_it_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured_anew: int, meant: int
) -> None:
    monkeypatch.setattr("edgenas.latency_tables.table.ENOUGH", 2)
    ways = [msgspec.structs.replace(ENVIRONMENT, measuring_version=version) for version in (1, 2)]
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        for way, count in zip(ways, (3, measured_anew), strict=True):
            for number in range(count):
                row = NetworkLatency(
                    model_sha256=f"{number}", threads=1, statistics=statistics((1.0, 1.0, 1.0))
                )
                table.add_latency(row, way)
        assert table.configurations()[0] == (ways[meant].fingerprint(), 1)
        assert table.latest_environment(ways[0].fingerprint()) == ways[0]


def test_kernels_that_had_several_keys_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables keep what an older EdgeNAS wrote; only the keys under which it is read are today's."""
    kernels = [traced("a", "s", *SAME, weight=(8, 8, 3, 3), **said) for said in WAYS_TO_SAY_IT["Conv"]]
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        with monkeypatch.context() as patched:
            patched.setattr("edgenas.latency_tables.table.spec_of", as_it_was_said)
            for number, kernel in enumerate(kernels):
                trace = KernelTrace(
                    model_sha256=f"{number}", runtime="onnxruntime", runtime_version="1", threads=1, runs=2,
                    run_latency_ms=1.0, kernels=(kernel,),
                )  # fmt: skip
                table.add_trace(trace, ENVIRONMENT)
        assert table.summary().kernels == len(kernels)
    with LatencyTable.open(tmp_path / "t.sqlite") as table:
        traces = list(table.traces(fingerprint=ENVIRONMENT.fingerprint(), threads=1))
        ((key, spec),) = table.kernels().items()
        assert key == spec.key() == spec_of(kernels[0]).key()
        assert {sample.kernel for trace in traces for sample in trace.kernels} == {key}


def as_it_was_said(kernel: TracedKernel) -> KernelSpec:
    return KernelSpec(
        kind=kernel.kind, layout=kernel.domain, attributes=kernel.attributes, inputs=kernel.inputs,
        outputs=kernel.outputs,
    )  # fmt: skip


def test_what_was_measured_in_another_way_stands_apart(tmp_path: Path) -> None:
    """Each alone is right; mixed, none is."""
    ways = [msgspec.structs.replace(ENVIRONMENT, measuring_version=version) for version in (1, 2)]
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        table.add_network(NetworkRow(model_sha256="a", name="a", space="s", precision="fp32", role="fit"))
        for way, latency_ms in zip(ways, (2.0, 1.0), strict=True):
            rounds = statistics((latency_ms, latency_ms, latency_ms))
            table.add_latency(NetworkLatency(model_sha256="a", threads=1, statistics=rounds), way)
        assert table.configurations() == [(ways[1].fingerprint(), 1), (ways[0].fingerprint(), 1)]
        (row,) = table.latencies(fingerprint=ways[1].fingerprint(), threads=1)
        assert row.measured().statistics.latency_ms == 1.0


def test_a_held_out_network_stays_held_out(tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        for role in ("structure", "held-out", "fit", "structure"):
            table.add_network(NetworkRow(model_sha256="a", name="a", space="s", precision="fp32", role=role))  # type: ignore[arg-type]
        assert table.networks()["a"].role == "held-out"


def test_two_processes_write_one_table(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    code = """
import sys
sys.path.insert(0, sys.argv[3])
from test_latency_tables import *
with LatencyTable.open(sys.argv[1], create=True) as table:
    fill(table, "mobilenetv3-demo", 12, seed=int(sys.argv[2]))
"""
    arguments = [
        [sys.executable, "-c", code, str(path), str(seed), str(Path(__file__).parent)] for seed in (1, 2)
    ]
    started = [subprocess.Popen(one, stderr=subprocess.PIPE) for one in arguments]
    errors = [one.communicate(timeout=60)[1] for one in started]
    assert [one.returncode for one in started] == [0, 0], errors
    with LatencyTable.open(path) as table:
        assert len(table.networks()) == 24
        assert len(list(table.latencies(fingerprint=ENVIRONMENT.fingerprint(), threads=1))) == 24
    assert verify(path, device="shared").intact


def test_a_missing_an_empty_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no latency table"):
        LatencyTable.open(tmp_path / "none.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(TableError, match="is empty"):
        LatencyTable.open(tmp_path / "empty.sqlite")
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(TableError, match="not a latency table"):
        LatencyTable.open(tmp_path / "other.sqlite")
    (tmp_path / "text.sqlite").write_text("hello " * 1000)
    with pytest.raises(TableError, match="damaged"):
        LatencyTable.open(tmp_path / "text.sqlite")


def test_a_newer_table_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    LatencyTable.open(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(TableError, match=f"version {SCHEMA_VERSION + 1}"):
        LatencyTable.open(path, create=True)
    assert path.read_bytes() == before


def small_table(path: Path) -> None:
    with LatencyTable.open(path, create=True) as table:
        fill(table, "mobilenetv3-demo", 3)


def test_a_truncated_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.sqlite"
    small_table(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not verify(path, device="cut").intact
    with pytest.raises(TableError, match="damaged"):
        observe(LatencyTable.open(path))


def content(path: Path) -> object:
    """Everything that can be read from a table."""
    with LatencyTable.open(path) as table:
        fingerprint = ENVIRONMENT.fingerprint()
        return (
            table.networks(), table.kernels(), table.environments(), table.summary().runs,
            list(table.traces(fingerprint=fingerprint, threads=1)),
            list(table.latencies(fingerprint=fingerprint, threads=1)),
        )  # fmt: skip


def test_no_flipped_byte_changes_what_is_read_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "flip.sqlite"
    small_table(path)
    original, expected = path.read_bytes(), content(path)
    rng, found = np.random.default_rng(0), 0
    for position in rng.integers(100, len(original), 60):
        flipped = bytearray(original)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        if verify(path, device="flip").intact:
            assert content(path) == expected, position
        else:
            found += 1
    assert found > 20


def test_a_flipped_byte_of_a_row_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "row.sqlite"
    small_table(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE traces SET kernels = replace(kernels, '0.0', '0.1')")
    connection.commit()
    connection.close()
    with pytest.raises(TableError, match="not what was written") as caught:
        observe(LatencyTable.open(path))
    assert "table verify" in caught.value.hint
    assert len(verify(path, device="row").problems) == 3


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "full.sqlite"
    small_table(path)
    table = LatencyTable.open(path)
    pages = table.database.connection.execute("PRAGMA page_count").fetchone()[0]
    table.database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(TableError, match="full"):
        fill(table, "residual-32px", 5, seed=9)
    table.close()
    assert verify(path, device="full").intact
    with LatencyTable.open(path) as again:
        assert len([one for one in again.networks() if one.startswith("0-")]) == 3


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.sqlite", create=True)
    with pytest.raises(RuntimeError), database.writing() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
        raise RuntimeError
    assert database.connection.execute("SELECT count(*) FROM meta").fetchone() == (0,)
    database.close()


# --- prediction ------------------------------------------------------------------------------------


def test_sums_of_work_hold_far_from_what_was_measured_and_doubt_grows() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(2, 10, (60, 3))
    work = np.column_stack([np.ones(60), 2**features])
    prices_ms = np.array([0.002, 1e-4, 5e-5, 0.0])
    latency_ms = work @ prices_ms * np.exp(rng.normal(0, 0.01, 60))
    fitted = ShapeRegressor.fit(features, work, latency_ms)
    outside = np.array([[14.0, 13.0, 12.0]])
    amount = np.column_stack([np.ones(1), 2**outside])
    mean, far = fitted.predict(outside, amount)
    _, near = fitted.predict(features[:1], work[:1])
    assert np.exp(mean[0]) == pytest.approx((amount @ prices_ms)[0], rel=0.1)
    assert far[0] > 1.5 * near[0]


def test_what_work_does_not_tell_is_learnt_from_shape() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(2, 10, (80, 2))
    work = np.column_stack([np.ones(80), 2 ** features[:, 0]])
    step = np.where(features[:, 1] > 6, 1.6, 1.0)
    fitted = ShapeRegressor.fit(features, work, work @ [0.001, 1e-4] * step)
    asked = np.array([[6.0, 3.0], [6.0, 9.0]])
    mean, _ = fitted.predict(asked, np.column_stack([np.ones(2), 2 ** asked[:, 0]]))
    assert np.exp(mean[1] - mean[0]) == pytest.approx(1.6, rel=0.1)


def test_features_that_tell_nothing_do_not_tell_samples_apart() -> None:
    rng = np.random.default_rng(3)
    features = rng.uniform(0, 10, (120, 3))
    steps = np.where(features[:, 1] % 2 < 1, 0.4, 0.0)  # as blocks of channels make them
    settings = most_likely(features, steps + rng.normal(0, 0.01, 120))
    smooth, stepping, idle = settings.lengths
    assert 2.0 * stepping < min(smooth, idle)
    assert 0.1 < settings.amplitude < 1.0


def test_one_sample_is_enough_for_a_guess() -> None:
    fitted = ShapeRegressor.fit(np.ones((1, 4)), np.ones((1, 2)), np.array([0.1]))
    mean, sd = fitted.predict(np.ones((1, 4)), np.ones((1, 2)))
    assert np.exp(mean[0]) == pytest.approx(0.1, rel=0.05) and np.isfinite(sd[0])
    more, _ = fitted.predict(np.ones((1, 4)), np.array([[1.0, 8.0]]))
    assert 0.1 < np.exp(more[0]) < 0.8


def test_a_predictor_is_fitted_once_for_what_a_table_holds(
    measured: LatencyTable, predictor: LatencyPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path))
    networks = observe(measured).with_role("held-out")
    expected = [predictor.estimate_counts(one.kernels) for one in networks]
    fitted(measured)
    kept = list(predictors_folder().glob("*.npz"))
    monkeypatch.setattr(LatencyPredictor, "fit_to", None)  # whoever fits again fails
    again = fitted(measured)
    for one, estimate in zip(networks, expected, strict=True):
        found = again.estimate_counts(one.kernels)
        assert found.latency_ms == pytest.approx(estimate.latency_ms, rel=1e-9)
        assert found.sd_ms == pytest.approx(estimate.sd_ms, rel=1e-4)
    assert again.quantiles == predictor.quantiles and again.networks == predictor.networks
    assert len(kept) == 1


def test_another_content_is_fitted_anew_and_a_damaged_file_is_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path))
    with LatencyTable.open(tmp_path / "t.sqlite", create=True) as table:
        fill(table, "mobilenetv3-demo", 24)
        first = fitted(table)
        networks = observe(table).with_role("fit")
        for path in predictors_folder().glob("*.npz"):
            path.write_bytes(path.read_bytes()[:-200])
        assert fitted(table).quantiles == first.quantiles
        with table.database.writing() as connection:
            gone = networks[0].network.model_sha256
            connection.execute("DELETE FROM latencies WHERE model_sha256 = ?", (gone,))
        assert fitted(table).networks == first.networks - 1
        with table.database.writing() as connection:
            connection.execute("UPDATE latencies SET statistics = replace(statistics, '1', '2')")
        with pytest.raises(TableError, match="damaged"):
            fitted(table)


def test_one_disturbed_network_does_not_move_the_others(measured: LatencyTable) -> None:
    observations = observe(measured)
    networks = list(observations.with_role("fit"))
    calm = LatencyPredictor.fit_to(observations, networks)
    networks[3] = replace(networks[3], latency_ms=2.5 * networks[3].latency_ms)
    disturbed = LatencyPredictor.fit_to(observations, networks)
    for one in observations.with_role("held-out"):
        moved = (
            disturbed.estimate_counts(one.kernels).latency_ms / calm.estimate_counts(one.kernels).latency_ms
        )
        assert moved == pytest.approx(1.0, abs=0.02)


def test_the_order_of_axes_tells_transposes_apart() -> None:
    def family(shape: tuple[int, ...], perm: list[int]) -> str:
        tensor = TensorType(dtype="float", shape=shape)
        spec = KernelSpec(
            kind="Transpose", layout="", attributes={"perm": perm}, inputs=(tensor,), outputs=(tensor,)
        )
        return family_of(spec)

    to_last = family((1, 8, 4, 4), [0, 2, 3, 1])
    assert to_last == family((1, 6, 5), [0, 2, 1]) == family((8, 4), [1, 0])
    assert to_last != family((2, 8, 4, 4), [0, 2, 3, 1])
    assert family((1, 8, 1, 4), [0, 2, 1, 3]) == family((8, 4), [0, 1])  # nothing moves


def test_held_out_networks_are_predicted_within_their_noise(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    observations = observe(measured)
    error = held_out_error(predictor, observations.with_role("held-out"))
    assert error is not None and error.networks == 14
    assert error.within_5 >= 0.9 and error.rmspe < 0.03 and (error.spearman or 0) > 0.98
    assert noise_floor(observations.networks) < 0.02
    alone = held_out_error(predictor, observations.with_role("held-out")[:1])
    assert alone is not None and alone.spearman is None  # one network has no rank, and JSON has no nan


def test_the_call_cost_that_the_profiler_added_is_taken_out(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    observations = observe(measured)
    networks = observations.with_role("held-out")
    profiled = [
        sum(observations.profiled_ms.get(key, 0.0) for key in one.kernels.elements()) for one in networks
    ]
    raw = np.array(profiled) / [one.latency_ms for one in networks]
    found = np.array([e.latency_ms / one.latency_ms for one, e in predictor.estimates(networks)])
    assert abs(np.log(found)).mean() < 0.5 * abs(np.log(raw)).mean()


def test_leaving_out_covers_what_the_interval_promises(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    observations = observe(measured)
    found = cross_validated(observations, observations.with_role("fit"), folds=8)
    held = [low <= one.latency_ms <= high for one, e in found for low, high in [e.interval_ms]]
    assert 0.8 <= np.mean(held) <= 1.0


def test_intervals_hold_for_floats_and_for_integers(tmp_path: Path) -> None:
    """A device that repeats floats to .1 % and integers to 2 % has intervals of two widths."""
    with LatencyTable.open(tmp_path / "both.sqlite", create=True) as table:
        fill(table, "mobilenetv3-demo", 120, seed=1, noise=1e-4, unexplained=0.001)
        fill(table, "mobilenetv3-demo", 120, seed=2, noise=1e-4, unexplained=0.02, integers=True)
        observations = observe(table)
    predictor = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
    found = list(predictor.estimates(observations.with_role("held-out")))
    widths, held = defaultdict(list), defaultdict(list)
    for one, estimate in found:
        low, high = estimate.interval_ms
        held[one.network.precision].append(low <= one.latency_ms <= high)
        widths[one.network.precision].append((high - low) / estimate.latency_ms)
    assert set(held) == {"fp32", "int8"}
    # Nine in ten of 24 networks are 18 or more in 99 of 100 draws.
    assert all(0.75 <= np.mean(of_one) <= 1.0 for of_one in held.values())
    assert 3.0 * np.median(widths["fp32"]) < np.median(widths["int8"])


def test_what_costs_all_networks_alike_widens_the_intervals_of_short_ones(tmp_path: Path) -> None:
    """Where memory lies may cost every network a few microseconds more or less."""
    with LatencyTable.open(tmp_path / "constant.sqlite", create=True) as table:
        fill(table, "mobilenetv3-demo", 240, noise=1e-4, unexplained_ms=0.004)
        observations = observe(table)
    predictor = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
    found = sorted(
        (one.latency_ms, estimate)
        for one, estimate in predictor.estimates(observations.with_role("held-out"))
    )
    assert len(found) == 48
    for third in (found[:16], found[16:32], found[32:]):
        assert np.mean([e.interval_ms[0] <= ms <= e.interval_ms[1] for ms, e in third]) >= 0.75
    assert 0.003 < predictor.design.unit_ms * predictor.posterior.constant < 0.006


def test_networks_that_were_picked_do_not_calibrate_intervals(tmp_path: Path) -> None:
    """Long networks were picked here and fit well; the others are what a user will ask for."""
    with LatencyTable.open(tmp_path / "picked.sqlite", create=True) as table:
        fill(table, "mobilenetv3-demo", 150, noise=1e-4, unexplained=0.02, picked=lambda ms: ms > 0.3)
        observations = observe(table)
    networks = observations.with_role("fit")
    assert 20 <= sum(not one.network.facts["picked"] for one in networks) < len(networks) - 20
    widths = []
    for known in (True, False):
        for one in networks:
            one.network.facts["picked"] &= known
        predictor = LatencyPredictor.fit_to(observations, networks)
        widths.append(predictor.quantiles.floats)
    assert widths[0] > 1.1 * widths[1]


def test_memory_beyond_a_cache_is_priced(tmp_path: Path) -> None:
    table = LatencyTable.open(tmp_path / "cached.sqlite", create=True)
    fill(table, "mobilenetv3-demo", 120, cache_mb=0.1)
    observations = observe(table)
    predictor = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
    error = held_out_error(predictor, observations.with_role("held-out"))
    assert error is not None and error.rmspe < 0.02
    fetched = predictor.memory_ms(np.array([0.2, 0.4]))
    assert fetched[1] - fetched[0] > 0.5 * 0.2 * FETCHED_MS


def test_no_kernel_is_priced_at_less_than_nothing(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    keys = {key for network in observe(measured).networks for key in network.kernels}
    columns = [predictor.column(key) for key in keys]
    linear = [
        one.guess.latency_ms + float(one.values @ predictor.posterior.mean[one.indices]) for one in columns
    ]
    assert min(linear) > 0.0
    np.testing.assert_allclose([predictor.kernel_ms(key) for key in keys], linear, rtol=0.05)


def test_an_unknown_kind_is_an_error_that_names_it(predictor: LatencyPredictor) -> None:
    kernel = traced("x", "a", (1, 4), (1, 4), kind="Wobble")
    with pytest.raises(UnknownKernelsError, match=r"Wobble\(1x4") as caught:
        predictor.predict(trace_of("x", (kernel,)))
    assert len(caught.value.kernels) == 1


def test_a_prediction_adds_up_and_says_what_was_interpolated(predictor: LatencyPredictor) -> None:
    seen = kernels_of(get_space("mobilenetv3-demo").placed(get_space("mobilenetv3-demo").largest())[0])
    unseen = traced(
        "conv", "a", (1, 24, 17, 17), (1, 24, 17, 17), group=1, kernel_shape=[3, 3], weight=(24, 24, 3, 3)
    )
    found = predictor.predict(trace_of("x", (*seen, unseen)), model="m")
    assert found.latency_ms == pytest.approx(found.overhead_ms + sum(one.latency_ms for one in found.kernels))
    assert found.kernels[-1].source == "interpolated" and 0 < found.interpolated_share < 1
    assert found.interval_ms[0] < found.latency_ms < found.interval_ms[1]


# --- compiled spaces -------------------------------------------------------------------------------


def test_a_template_gives_the_kernels_of_sizes_never_seen() -> None:
    space, rng = get_space("mobilenetv3-32px"), np.random.default_rng(0)
    placed = {
        describe_layer(one).key(): one for genome in space.sample(rng, 150) for one in space.placed(genome)
    }
    layers = list(placed.values())
    templates = LayerTemplates()
    for one in layers[::2]:
        templates.learn(
            describe_layer(one), [(k.name[len(k.layer) + 1 : -6], spec_of(k)) for k in kernels_of(one)]
        )
    known = [one for one in layers[1::2] if templates.knows(describe_layer(one))]
    right = 0
    for one in known:
        layer = describe_layer(one)
        filled = [template.fill(layer.numbers) for template in templates.templates(layer)]
        right += filled == [spec_of(kernel) for kernel in kernels_of(one)]
    assert len(known) > 200 and right / len(known) > 0.98


def test_compiled_and_slow_path_agree_to_the_last_digit(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    space = get_space("mobilenetv3-demo")
    compiled = CompiledSpace.compile(space, measured, predictor)
    genomes = space.sample(np.random.default_rng(3), 300)
    slow = [
        overhead + sum(price.latency_ms for _, price in compiled.kernels(one))
        for one, overhead in zip(genomes, compiled.overhead_ms(genomes), strict=True)
    ]
    np.testing.assert_allclose(compiled.latency_ms(genomes), slow, rtol=0, atol=1e-9)
    low, high = compiled.interval_ms(genomes[:20]).T
    assert ((low < compiled.latency_ms(genomes[:20])) & (compiled.latency_ms(genomes[:20]) < high)).all()


def test_compiled_networks_cost_what_their_kernels_cost(
    measured: LatencyTable, predictor: LatencyPredictor
) -> None:
    space = get_space("mobilenetv3-demo")
    compiled = CompiledSpace.compile(space, measured, predictor)
    observations = observe(measured)
    found = list(predictor.estimates(observations.networks))
    genomes = np.array([one.network.genome for one, _ in found])
    np.testing.assert_allclose(compiled.latency_ms(genomes), [e.latency_ms for _, e in found], rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_indices_of_a_compiled_space_are_distinct_entries(seed: int) -> None:
    space = get_space("mobilenetv3-demo")
    from edgenas.latency_tables.dense import _mixed_radix

    weights, sizes = _mixed_radix([slot.genes for slot in space.slots], space.option_counts)
    genome = space.sample(np.random.default_rng(seed), 1)
    indices = (genome @ weights).astype(int)[0]
    assert all(0 <= index < size for index, size in zip(indices, sizes, strict=True))


# --- what is measured ------------------------------------------------------------------------------


def test_a_cover_is_deterministic_and_better_than_chance() -> None:
    space = get_space("mobilenetv3-demo")
    first, second = (
        cover(space, space_sampler, least=10, most=30, rng=np.random.default_rng(5))
        for space_sampler in (space.sample, space.sample)
    )
    np.testing.assert_array_equal(first.genomes, second.genomes)
    assert first.coverage > 0.7


@pytest.mark.parametrize("scheme", [None, "u8s8"])
def test_networks_like_published_ones_run_and_are_quantized_throughout(scheme: str | None) -> None:
    for index in (*range(0, len(FAMILIES), 5), len(FAMILIES) + 2):
        model = architecture(index, seed=1, int8_scheme=scheme, opset=17, ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        image = session.get_inputs()[0]
        found = session.run(None, {image.name: np.zeros(image.shape, np.float32)})[0]
        declared = [one.dim_value for one in model.graph.output[0].type.tensor_type.shape.dim]
        assert list(found.shape) == declared and np.isfinite(found).all()
        assert any(node.op_type == "QuantizeLinear" for node in model.graph.node) == (scheme is not None)


def test_clamped_activations_leave_whole_int8_kernels(tmp_path: Path) -> None:
    index = [family.__name__ for family, _ in FAMILIES].index("mobilenet_v1")
    model = architecture(index, seed=1, int8_scheme="u8s8", opset=17, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "QLinearConv" in kinds and not kinds & {"Conv", "FusedConv", "Relu", "Clip"}


@pytest.mark.parametrize("scheme", [None, "u8s8"])
@pytest.mark.parametrize("index", range(0, 22, 3))
def test_kernel_networks_are_valid_and_repeatable(index: int, scheme: str | None) -> None:
    first, second = (
        kernel_network(index, seed=1, int8_scheme=scheme, opset=17, ir_version=8) for _ in range(2)
    )
    onnx.checker.check_model(first, full_check=True)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize("scheme", [None, "u8s8"])
def test_the_tour_shows_every_operator(scheme: str | None) -> None:
    shown: set[str] = set()
    for index in range(len(STOPS)):
        model = tour_network(index, seed=1, int8_scheme=scheme, opset=17, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        shown |= {node.op_type for node in model.graph.node}
    ordinary = {
        "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv",
        "ConvTranspose", "DepthToSpace", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gemm",
        "GlobalAveragePool", "HardSigmoid", "HardSwish", "InstanceNormalization", "LSTM",
        "LayerNormalization", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul", "NonMaxSuppression",
        "PRelu", "Pad", "Pow", "ReduceMax", "ReduceMean", "Relu", "Reshape", "Resize", "RoiAlign",
        "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK",
        "Transpose", "Unsqueeze", "Where",
    }  # fmt: skip
    assert ordinary <= shown
