"""The built-in spaces, the builders and the registry."""

from __future__ import annotations

import ast
import csv
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_space_contract import SearchSpaceContract, images_for, outputs_of

from edgenas.errors import ModelError, UnknownNameError, UsageError
from edgenas.search_spaces import (
    AnyLayer,
    BasicBlock,
    ConvLayer,
    FusedInvertedResidual,
    Genomes,
    Head,
    InvertedResidual,
    Network,
    RestrictedSpace,
    SearchSpace,
    build_onnx,
    default_space,
    get_space,
    macs,
    parameters,
    space_names,
    weight_bytes,
    weight_shapes,
)
from edgenas.search_spaces.counted import CountedSpace
from edgenas.search_spaces.onnx_builder import BUILDER_VERSION
from edgenas.search_spaces.wiring import Ways, ways_through

STAGED = (
    "dense-32px",
    "dense-demo",
    "mobilenetv3",
    "mobilenetv3-32px",
    "mobilenetv3-32px-joint",
    "mobilenetv3-demo",
    "residual",
    "residual-32px",
    "residual-32px-joint",
)


@pytest.mark.parametrize("name", STAGED, scope="class")
class TestStagedSpaces(SearchSpaceContract):
    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return get_space(name, classes=7)


class TestNASBench201(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return get_space("nasbench201")


class TestNASBenchMacro(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return get_space("nasbench-macro")


class TestTextEncoder(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return get_space("text-encoder", classes=3)


class TestTomlSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self, tmp_path: Path) -> SearchSpace:
        return get_space(str(worked_example(tmp_path)), classes=4, channels=1)


def restricted() -> RestrictedSpace:
    """Float only, shallow, without the smallest width of one stage."""
    base = get_space("mobilenetv3-demo")
    allowed = {choice.name: ["fp32"] for choice in base.choices if choice.name.endswith("precision")}
    return RestrictedSpace(base, allowed | {"s3.width": [64], "s2.depth": [1], "resolution": [48, 32]})


class TestRestrictedSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return restricted()

    def test_the_base_knows_every_network(self, genomes: Genomes) -> None:
        space = restricted()
        for genome, in_base in zip(genomes, space.to_base(genomes), strict=True):
            assert space.network(genome) == space.base.network(in_base)
            assert (space.base.genome_of(space.describe(genome)) == space.base.canonical(in_base)).all()

    def test_only_allowed_options_are_drawn(self, genomes: Genomes) -> None:
        space = restricted()
        described = [space.describe(genome) for genome in genomes]
        assert {item["resolution"] for item in described} == {32, 48}
        assert {item["s3.width"] for item in described} == {64}
        assert all(layer.precision == "fp32" for genome in genomes for layer in space.network(genome).layers)

    @pytest.mark.parametrize("allowed", [{"colour": [1]}, {"resolution": [33]}, {"resolution": []}])
    def test_what_does_not_exist_cannot_be_allowed(self, allowed: dict[str, list[int]]) -> None:
        with pytest.raises(UsageError, match=r"has no gene colour|has the options"):
            RestrictedSpace(get_space("mobilenetv3-demo"), allowed)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_describe_and_genome_of_are_inverse(data: st.DataObject) -> None:
    space = get_space(data.draw(st.sampled_from(STAGED)))
    genome = np.array([data.draw(st.integers(0, count - 1)) for count in space.option_counts])
    canonical = space.canonical(genome)
    assert (space.canonical(canonical) == canonical).all()
    assert (space.genome_of(space.describe(genome)) == canonical).all()


def test_proposing_networks_loads_neither_onnx_nor_torch() -> None:
    program = (
        "import sys, numpy\n"
        "from edgenas.search_spaces import get_space, macs\n"
        "space = get_space('mobilenetv3')\n"
        "macs(space.network(space.sample(numpy.random.default_rng(0), 1)[0]))\n"
        "print(sorted({'onnx', 'onnxruntime', 'torch', 'openvino'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- the benchmark spaces ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ({}, ["zero"]),
        ({"0-3": "skip"}, []),
        ({"0-1": "conv3x3", "2-3": "conv3x3"}, ["zero"]),
        ({"0-1": "conv3x3", "0-2": "conv1x1", "1-3": "skip"}, ["relu0", "edge01"]),
        ({"0-1": "skip", "0-3": "avgpool3x3", "1-3": "skip"}, ["edge03", "node3_0"]),
    ],
)
def test_only_edges_on_a_path_are_computed(cell: dict[str, str], parts: list[str]) -> None:
    space = get_space("nasbench201")
    network = space.network(space.genome_of(cell))
    assert [part.name for part in network.layers[1].parts()] == parts
    assert np.isfinite(outputs_of(build_onnx(network), images_for(network, 1))).all()


@pytest.mark.parametrize(
    ("cell", "ways"),
    [
        ({}, Ways(0, 0, 0)),
        ({"0-3": "skip"}, Ways(1, 1, 1)),
        ({"0-3": "avgpool3x3"}, Ways(1, 1, 0, pools=1)),
        ({"0-1": "conv3x3", "1-2": "conv1x1", "2-3": "avgpool3x3"}, Ways(1, 0, 0, 2, 2, 2, pools=1)),
        (
            {"0-1": "conv3x3", "1-2": "conv1x1", "2-3": "conv3x3", "0-3": "skip"},
            Ways(2, 1, 1, weighted=3, longest=3, shortest=0),
        ),
        # 0-2-3, 0-1-2-3 and 0-1-3; what leads nowhere is none
        (
            {"0-1": "skip", "0-2": "conv3x3", "1-2": "conv1x1", "1-3": "avgpool3x3", "2-3": "conv3x3"},
            Ways(3, 1, 0, weighted=4, longest=2, shortest=0),
        ),
    ],
)
def test_the_ways_through_a_cell_are_told_by_few_numbers(cell: dict[str, str], ways: Ways) -> None:
    space = get_space("nasbench201")
    assert ways_through(space.network(space.genome_of(cell)).layers[1]) == ways


def test_a_residual_is_a_way_that_changes_nothing_and_a_gate_is_none() -> None:
    block = InvertedResidual(name="block", in_channels=16, out_channels=16, hidden=64, se=True)
    assert ways_through(block) == Ways(2, 1, 1, weighted=3, longest=3, shortest=0)


@pytest.mark.parametrize("name", ["nasbench201", "mobilenetv3-demo", "text-encoder"])
def test_traits_are_the_sums_over_a_networks_layers(name: str) -> None:
    space = get_space(name)
    counted = CountedSpace(space)
    genomes = space.sample(np.random.default_rng(0), 3)
    traits = counted.traits(genomes)
    assert np.allclose(np.expm1(traits[:, 0]), counted.macs(genomes))
    for genome, told in zip(genomes, traits, strict=True):
        ways = [ways_through(layer) for layer in space.network(genome).layers]
        assert told[2] == pytest.approx(sum(np.log1p(one.count) for one in ways))
        assert told[4:7].tolist() == [
            sum(getattr(one, field) for one in ways) for field in ("unchanged", "longest", "shortest")
        ]


def test_cells_that_compute_the_same_have_the_same_traits() -> None:
    space = get_space("nasbench201")
    cells = ({"0-3": "conv3x3"}, {"0-3": "conv3x3", "0-1": "conv1x1"}, {"0-3": "conv1x1"})
    same, dead, other = CountedSpace(space).traits(np.stack([space.genome_of(one) for one in cells]))
    assert (same == dead).all()
    assert (same != other).any()


def published(folder: str, name: str) -> Path:
    path = Path(__file__).parents[2] / "shared" / "data" / folder / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the benchmark's own table is needed to compare with")
    return path


def batch_norm_channels(network: Network) -> int:
    """What folding removes: training counts a scale and a shift, shipping one bias a channel."""
    parts = (part for layer in network.layers for part in layer.parts())
    return sum(part.out_channels for part in parts if getattr(part, "normalized", False))


def test_nasbench_macro_networks_count_as_published() -> None:
    table = json.loads(published("nas_bench_macro", "nas-bench-macro_cifar10.json").read_text())
    space = get_space("nasbench-macro")
    assert len(table) == np.prod(space.option_counts)
    for digits in list(table)[::61]:
        network = space.network(np.array([int(digit) for digit in digits]))
        assert macs(network) == table[digits]["flops"]
        assert parameters(network) + batch_norm_channels(network) == table[digits]["params"]


def test_nasbench201_networks_count_as_published() -> None:
    operations = ("skip", "none", "conv3x3", "conv1x1", "avgpool3x3")
    path = published("nasbench201", "nb201_zero_cost_proxies_9445.csv")
    space = get_space("nasbench201")
    # The published skeleton has no bias in its two shortcuts and no convolution in its last norm.
    skeleton = 32 + 64 + 64
    with path.open() as lines:
        for row in itertools.islice(csv.DictReader(lines), 0, 4000, 80):
            cell = [operations[code] for code in ast.literal_eval(row["net"])]
            if "none" in cell:  # the published count includes edges that lead nowhere
                continue
            genome = space.genome_of(dict(zip((c.name for c in space.choices), cell, strict=True)))
            network = space.network(genome)
            counted = parameters(network) + batch_norm_channels(network) - skeleton
            assert counted == round(1e6 * float(row["params"]))


# --- a space of one's own ----------------------------------------------------------------------


def worked_example(folder: Path) -> Path:
    """The space of the documentation, as a user would copy it."""
    page = (Path(__file__).parents[1] / "docs" / "add-your-search-space.md").read_text()
    path = folder / "badges.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    return path


def test_a_toml_space_is_named_after_its_file(tmp_path: Path) -> None:
    assert get_space(str(worked_example(tmp_path))).name == "badges"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("resolution = [48, 64]", "resolution = [64, 48]", "'resolution' must be positive and ascending"),
        ("resolution = [48, 64]", "", "missing required field `resolution`"),
        ("resolution = [48, 64]", "resolution = []", "'resolution' needs distinct options"),
        ("resolution = [48, 64]", "resolution = [48,", "not valid TOML"),
        ("kernel = [3, 5]", "kernel = [3, 4]", "kernels must be odd, found"),
        ("kernel = [3, 5]", 'kernel = "large"', "Expected `int`, got `str`"),
        ("kernel = [3, 5]", "kernels = [3, 5]", "unknown field `kernels`"),
        ('operator = "depthwise"', 'operator = "dense"', "Invalid enum value 'dense'"),
    ],
)
def test_a_wrong_toml_space_says_what_is_wrong(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = worked_example(tmp_path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(UsageError, match=re.escape(message)):
        get_space(str(path))


def test_a_missing_toml_space_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        get_space(str(tmp_path / "absent.toml"))


# --- the registry ------------------------------------------------------------------------------


def test_unknown_space_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="no search space 'mobilenet3'") as caught:
        get_space("mobilenet3")
    assert "mobilenetv3" in str(caught.value) and "did you mean" in caught.value.hint


def test_default_space_follows_the_image_size() -> None:
    assert default_space(32) == "dense-32px"
    assert default_space(224) == "mobilenetv3"
    assert {default_space(32), default_space(224)} <= set(space_names())


def test_space_from_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "someones_space-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-space\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[edgenas.search_spaces]\ntheirs = someones_space:make\n")
    (tmp_path / "someones_space.py").write_text(
        "from edgenas.search_spaces import get_space\n"
        "def make(*, classes, channels):\n"
        "    return get_space('residual-32px', classes=classes, channels=channels)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "theirs" in space_names()
    assert get_space("theirs", classes=3).classes == 3


# --- the builders ------------------------------------------------------------------------------


def mixed_network(precisions: str = "ffff", activation: str = "hardswish") -> Network:
    """Every kind of block; one letter a layer: f fp32, i int8."""
    stem, block, fused, head = ("int8" if letter == "i" else "fp32" for letter in precisions)
    layers: tuple[AnyLayer, ...] = (
        ConvLayer(
            name="stem", in_channels=3, out_channels=16, stride=2, activation=activation, precision=stem
        ),
        InvertedResidual(
            name="s1b0", in_channels=16, out_channels=16, hidden=48, se=True, activation=activation,
            precision=block,
        ),
        FusedInvertedResidual(
            name="s1b1", in_channels=16, out_channels=24, hidden=32, stride=2, precision=fused
        ),
        BasicBlock(name="s2b0", in_channels=24, out_channels=32, hidden=32, precision=fused),
        Head(name="head", in_channels=32, out_channels=5, features=64, hidden=48, precision=head),
    )  # fmt: skip
    return Network(name="mixed", input_shape=(3, 32, 32), layers=layers, classes=5)


def optimized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime executes it on this machine."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # saving an optimized graph warns that it fits this machine only
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def test_a_builder_that_writes_other_graphs_has_another_version() -> None:
    """Tables take a network for measured by its recipe, which knows the builder by its version only."""
    text = get_space("text-encoder")
    networks = [mixed_network(), mixed_network("iiii"), text.network(text.smallest())]
    digest = hashlib.sha256()
    for graph in (build_onnx(network).graph for network in networks):
        for node in graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        for weight in graph.initializer:  # their values are random, and no latency depends on them
            digest.update(repr((weight.name, weight.data_type, list(weight.dims))).encode())
    assert (BUILDER_VERSION, digest.hexdigest()[:16]) == (1, "1b2ff55a4788838d")


def test_int8_layers_become_integer_kernels(tmp_path: Path) -> None:
    model = optimized(build_onnx(mixed_network("iiii", "relu")), tmp_path)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == kinds["FusedConv"] == kinds["Gemm"] == kinds["Relu"] == 0
    convolutions = sum(len(shape) == 4 for shape in weight_shapes(mixed_network()).values())
    assert kinds["QLinearConv"] == convolutions
    assert kinds["QGemm"] == 1 and kinds["QLinearAdd"] == 2


@pytest.mark.parametrize("activation", ["relu", "hardswish"])
@pytest.mark.parametrize("scheme", ["u8s8", "s8s8", "u8u8"])
def test_the_int8_form_is_what_static_quantization_gives(
    tmp_path: Path, scheme: str, activation: str
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    network = mixed_network("iiii", activation)
    types = {"u": QuantType.QUInt8, "s": QuantType.QInt8}

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images_for(network, 3))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"input": image[None]}

    onnx.save(build_onnx(network, precision=False), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(),
        activation_type=types[scheme[0]], weight_type=types[scheme[2]],
    )  # fmt: skip
    real = optimized(onnx.load(tmp_path / "int8.onnx"), tmp_path)
    synthetic = optimized(build_onnx(network, int8_scheme=scheme), tmp_path)
    assert Counter(n.op_type for n in synthetic.graph.node) == Counter(n.op_type for n in real.graph.node)


@pytest.mark.parametrize("precisions", ["ffff", "iiii", "fiif", "iffi", "fifi"])
def test_every_node_is_named_after_its_layer(precisions: str) -> None:
    network = mixed_network(precisions)
    names = {layer.name for layer in network.layers}
    model = build_onnx(network)
    assert {node.name.split("/")[0] for node in model.graph.node} == names
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    for node in model.graph.node:
        assert node.output[0] == "logits" or node.output[0].split("/")[0] == node.name.split("/")[0]


@pytest.mark.parametrize("precisions", ["ffff", "iiii", "fiif", "iffi", "fifi"])
def test_boundaries_between_precisions_cost_one_conversion(precisions: str) -> None:
    network = mixed_network(precisions)
    model = build_onnx(network)
    onnx.checker.check_model(model, full_check=True)
    float_inputs = [node for node in model.graph.node if node.name.endswith("/input_quantize")]
    placed = network.placed()
    expected = [p for p in placed if p.layer.precision == "int8" and p.input_precision == "fp32"]
    assert [node.name for node in float_inputs] == [f"{p.layer.name}/input_quantize" for p in expected]
    assert np.isfinite(outputs_of(model, images_for(network, 1))).all()


def test_int8_output_stays_near_float_output() -> None:
    network = mixed_network("iiii")
    images = images_for(network, 1)
    float_outputs = outputs_of(build_onnx(network, precision=False), images)
    int8_outputs = outputs_of(build_onnx(network), images)
    assert np.linalg.norm(int8_outputs - float_outputs) < 0.5 * np.linalg.norm(float_outputs)


@pytest.mark.parametrize("precisions", ["ffff", "iiii", "fiif"])
def test_openvino_reads_and_runs_what_is_written(precisions: str) -> None:
    openvino = pytest.importorskip("openvino")
    network = mixed_network(precisions)
    model = build_onnx(network)
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some CPUs would run float models in bf16
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    images = images_for(network, 1)
    outputs = compiled([images])[0]
    tolerance = 1e-3 if precisions == "ffff" else 0.5
    assert np.abs(outputs - outputs_of(model, images)).max() < tolerance


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_runs_no_reference_kernel_for_hardswish(precision: str) -> None:
    """A HardSwish in pieces ran between two reorders: nearly three times the network's time."""
    openvino = pytest.importorskip("openvino")
    space = get_space("mobilenetv3-demo")
    wanted = {"activation": "hardswish", "precision": precision}
    genome = space.genome_of(
        {choice.name: wanted.get(choice.name.split(".")[-1], choice.options[0]) for choice in space.choices}
    )
    core = openvino.Core()
    model = core.read_model(build_onnx(space.network(genome)).SerializeToString())
    nodes = core.compile_model(model, "CPU").get_runtime_model().get_ops()
    kernels = [node.get_rt_info()["primitiveType"].astype(str) for node in nodes]
    assert kernels and not [kernel for kernel in kernels if kernel.startswith("ref_any")]


@pytest.mark.parametrize(("opset", "ir_version"), [(14, 7), (17, 8), (21, 10)])
def test_opset_and_ir_are_what_was_asked_for(opset: int, ir_version: int) -> None:
    model = build_onnx(mixed_network("fiif"), opset=opset, ir_version=ir_version, metadata={"a": "b"})
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)
    assert [(item.key, item.value) for item in model.metadata_props] == [("a", "b")]
    outputs_of(model, images_for(mixed_network(), 1))


@pytest.mark.parametrize("precisions", ["ffff", "iiii"])
def test_dynamic_batch_gives_the_same_outputs(precisions: str) -> None:
    network = mixed_network(precisions)
    images = images_for(network, 3)
    dynamic = outputs_of(build_onnx(network, batch=None), images)
    single = build_onnx(network)
    each = np.concatenate([outputs_of(single, image[None]) for image in images])
    np.testing.assert_allclose(dynamic, each, atol=1e-4)


def test_the_seed_decides_the_bytes() -> None:
    first, again, other = (build_onnx(mixed_network(), seed=seed).SerializeToString() for seed in (1, 1, 2))
    assert first == again != other


def test_int8_weights_take_a_byte() -> None:
    network = mixed_network("iiii")
    biases = sum(shape[0] for key, shape in weight_shapes(network).items() if key.endswith("bias"))
    assert weight_bytes(network) == parameters(network) - biases + 4 * biases
    assert weight_bytes(mixed_network("ffff")) == 4 * parameters(network)


def test_weights_that_do_not_fit_are_named() -> None:
    network = mixed_network()
    weights = {key: np.zeros(shape, np.float32) for key, shape in weight_shapes(network).items()}
    build_onnx(network, weights=weights)
    with pytest.raises(ModelError, match=r"'stem\.conv\.bias' hold NaN"):
        build_onnx(network, weights=weights | {"stem.conv.bias": np.full(16, np.nan)})
    with pytest.raises(ModelError, match=r"'stem\.conv\.bias' have shape \(3,\)"):
        build_onnx(network, weights=weights | {"stem.conv.bias": np.zeros(3)})
    with pytest.raises(ModelError, match=r"no weights for 's1b0\.expand\.weight'"):
        build_onnx(network, weights={k: v for k, v in weights.items() if k != "s1b0.expand.weight"})


def test_trained_weights_are_never_written_with_made_up_scales() -> None:
    with pytest.raises(ModelError, match="scales here are synthetic"):
        build_onnx(mixed_network("iiii"), weights={})


def test_unknown_scheme_and_old_opset_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="int8 scheme"):
        build_onnx(mixed_network("iiii"), int8_scheme="u4u4")
    with pytest.raises(ModelError, match="opset 9"):
        build_onnx(mixed_network(), opset=9)


class TestDocumentedClass(SearchSpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        page = (Path(__file__).parents[1] / "docs" / "add-your-search-space.md").read_text()
        namespace: dict[str, Any] = {}
        exec(page.split("```python\n")[1].split("```")[0], namespace)
        space = namespace["TwoConvolutions"](classes=3)
        assert isinstance(space, SearchSpace)
        return space
