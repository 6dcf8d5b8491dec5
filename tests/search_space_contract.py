"""What every search space must hold. A space's test class inherits it and supplies the fixture."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgenas.errors import UsageError
from edgenas.search_spaces import (
    Genomes,
    Network,
    SearchSpace,
    build_onnx,
    layer_key,
    macs,
    parameters,
    weight_shapes,
)
from edgenas.search_spaces.torch_builder import build_torch, folded_weights


def outputs_of(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def images_for(network: Network, n: int = 2) -> np.ndarray:
    """Images, or texts as token numbers."""
    if network.vocabulary:
        tokens = (n, network.input_shape[-1])
        return np.random.default_rng(7).integers(0, network.vocabulary, tokens)
    return np.random.default_rng(7).normal(size=(n, *network.input_shape)).astype(np.float32)


class SearchSpaceContract:
    @pytest.fixture
    def space(self) -> SearchSpace:
        raise NotImplementedError

    @pytest.fixture
    def genomes(self, space: SearchSpace) -> Genomes:
        """The extremes and a seeded sample."""
        drawn = space.sample(np.random.default_rng(11), 40)
        return np.concatenate([space.smallest()[None], space.largest()[None], drawn])

    def test_sample_is_seeded_and_canonical(self, space: SearchSpace) -> None:
        first, again = (space.sample(np.random.default_rng(3), 50) for _ in range(2))
        assert first.dtype == np.int64 and first.shape == (50, len(space.choices))
        assert (first == again).all()
        assert (space.canonical(first) == first).all()
        assert (first >= 0).all() and (first < space.option_counts).all()

    def test_an_inactive_gene_changes_nothing(self, space: SearchSpace, genomes: Genomes) -> None:
        rng = np.random.default_rng(5)
        raw = rng.integers(0, space.option_counts, size=(30, len(space.choices)))
        for genome, canonical in zip(raw, space.canonical(raw), strict=True):
            assert space.network(genome) == space.network(canonical)

    def test_every_active_gene_changes_the_network(self, space: SearchSpace, genomes: Genomes) -> None:
        for genome in genomes[:6]:
            fingerprint = space.network(genome).fingerprint()
            for gene in np.flatnonzero(space.active(genome[None])[0] & (space.option_counts > 1)):
                other = genome.copy()
                other[gene] = (genome[gene] + 1) % space.option_counts[gene]
                assert space.network(other).fingerprint() != fingerprint, space.choices[gene].name

    def test_description_round_trips_through_json(self, space: SearchSpace, genomes: Genomes) -> None:
        for genome in genomes:
            described = msgspec.json.decode(msgspec.json.encode(space.describe(genome)))
            assert (space.genome_of(described) == genome).all()

    def test_unknown_gene_or_option_is_an_error(self, space: SearchSpace) -> None:
        with pytest.raises(UsageError, match="no gene colour"):
            space.genome_of({"colour": 3})
        with pytest.raises(UsageError, match="no option 'purple'"):
            space.genome_of({space.choices[0].name: "purple"})

    def test_network_round_trips_through_json(self, space: SearchSpace, genomes: Genomes) -> None:
        for genome in genomes[:8]:
            network = space.network(genome)
            assert msgspec.json.decode(network.to_json(), type=Network) == network

    def test_slots_place_layers_where_the_network_has_them(
        self, space: SearchSpace, genomes: Genomes
    ) -> None:
        for genome in genomes:
            network = space.network(genome)
            assert space.placed(genome) == network.placed()
            names = [layer.name for layer in network.layers]
            assert names == [slot.name for slot in space.slots if slot.name in names]
            assert network.layers[-1].out_channels == network.classes == space.classes

    def test_slots_stay_enumerable(self, space: SearchSpace) -> None:
        assert len({slot.name for slot in space.slots}) == len(space.slots)
        for slot in space.slots:
            assert len(set(slot.genes)) == len(slot.genes)
            assert np.prod(space.option_counts[list(slot.genes)]) < 20_000, slot.name

    def test_layer_keys_ignore_names(self, space: SearchSpace) -> None:
        for placed in space.placed(space.largest()):
            renamed = msgspec.structs.replace(
                placed, layer=msgspec.structs.replace(placed.layer, name="another")
            )
            assert layer_key(renamed) == layer_key(placed)
            assert placed.layer.name not in layer_key(placed).split('"')

    def test_counts_agree_with_the_onnx_graph(self, space: SearchSpace, genomes: Genomes) -> None:
        for genome in genomes[[0, 2, 3]]:
            network = space.network(genome)
            model = onnx.shape_inference.infer_shapes(build_onnx(network, precision=False))
            assert parameters(network) == parameters_in(model)
            assert macs(network) == macs_in(model)
            assert set(weight_shapes(network)) == {item.name for item in model.graph.initializer}

    def test_smallest_and_largest_bound_parameters(self, space: SearchSpace, genomes: Genomes) -> None:
        counts = [parameters(space.network(genome)) for genome in genomes]
        assert counts[0] == min(counts) and counts[1] == max(counts)

    def test_torch_and_onnx_agree(self, space: SearchSpace, genomes: Genomes) -> None:
        torch.manual_seed(0)
        for genome in genomes[[0, 2, 3]]:
            network = space.network(genome)
            module = build_torch(network)
            images = images_for(network)
            with torch.no_grad():
                module.train()
                module(torch.from_numpy(np.repeat(images, 4, axis=0)))  # batch norms leave their start
                expected = module.eval()(torch.from_numpy(images)).numpy()
            weights = folded_weights(module, network)
            model = build_onnx(network, weights=weights, batch=None, precision=False)
            assert np.abs(outputs_of(model, images) - expected).max() < 1e-4 * max(1, np.abs(expected).max())

    def test_every_precision_loads_and_runs(self, space: SearchSpace, genomes: Genomes) -> None:
        for genome in genomes[[0, 2]]:
            network = space.network(genome)
            for scheme in ("u8s8", "s8s8", "u8u8"):
                model = build_onnx(network, int8_scheme=scheme)
                onnx.checker.check_model(model, full_check=True)
            outputs = outputs_of(model, images_for(network, 1))
            assert outputs.shape == (1, network.classes) and np.isfinite(outputs).all()


def parameters_in(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(item.dims)) for item in model.graph.initializer)


def macs_in(model: onnx.ModelProto) -> int:
    """Counted from the graph alone: output elements times the weights behind each of them."""
    shapes = {item.name: list(item.dims) for item in model.graph.initializer}
    values = [*model.graph.value_info, *model.graph.output]
    outputs = {value.name: [item.dim_value for item in value.type.tensor_type.shape.dim] for value in values}
    weighted = sum(
        int(np.prod(outputs[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
        for node in model.graph.node
        if node.op_type in {"Conv", "Gemm"}
    )
    products = sum(
        int(np.prod(outputs[node.output[0]]) * outputs[node.input[0]][-1])
        for node in model.graph.node
        if node.op_type == "MatMul"
    )
    return weighted + products
