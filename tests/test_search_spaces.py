"""The built-in spaces, the builders and the registry."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_space_contract import SearchSpaceContract, images_for, outputs_of

from edgenas.errors import ModelError, UnknownNameError
from edgenas.search_spaces import (
    AnyLayer,
    BasicBlock,
    ConvLayer,
    FusedInvertedResidual,
    Head,
    InvertedResidual,
    Network,
    SearchSpace,
    build_onnx,
    default_space,
    get_space,
    parameters,
    space_names,
    weight_bytes,
    weight_shapes,
)

STAGED = ("mobilenetv3", "mobilenetv3-32px", "mobilenetv3-demo", "residual", "residual-32px")


@pytest.mark.parametrize("name", STAGED, scope="class")
class TestStagedSpaces(SearchSpaceContract):
    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return get_space(name, classes=7)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_describe_and_genome_of_are_inverse(data: st.DataObject) -> None:
    space = get_space(data.draw(st.sampled_from(STAGED)))
    genome = np.array([data.draw(st.integers(0, count - 1)) for count in space.option_counts])
    canonical = space.canonical(genome)
    assert (space.canonical(canonical) == canonical).all()
    assert (space.genome_of(space.describe(genome)) == canonical).all()


# --- the registry ------------------------------------------------------------------------------


def test_unknown_space_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="no search space 'mobilenet3'") as caught:
        get_space("mobilenet3")
    assert "mobilenetv3" in str(caught.value) and "did you mean" in caught.value.hint


def test_default_space_follows_the_image_size() -> None:
    assert default_space(32) == "mobilenetv3-32px"
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


def test_int8_layers_become_integer_kernels(tmp_path: Path) -> None:
    model = optimized(build_onnx(mixed_network("iiii", "relu")), tmp_path)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == kinds["FusedConv"] == kinds["Gemm"] == kinds["Relu"] == 0
    convolutions = sum(len(shape) == 4 for shape in weight_shapes(mixed_network()).values())
    assert kinds["QLinearConv"] == convolutions
    assert kinds["QGemm"] == 1 and kinds["QLinearAdd"] == 2


def test_the_int8_form_is_what_static_quantization_gives(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    network = mixed_network("iiii")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images_for(network, 3))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"input": image[None]}

    onnx.save(build_onnx(network, precision=False), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(),
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    real = optimized(onnx.load(tmp_path / "int8.onnx"), tmp_path)
    synthetic = optimized(build_onnx(network), tmp_path)
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


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8), (21, 10)])
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
