"""Devices with few measurements, helped by the workspace's other tables: real tables, synthetic devices."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_latency_tables import ENVIRONMENT, fill, kernels_of, plain_ms, trace_of

from edgenas.console import transfer_note
from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.evaluation import spearman
from edgenas.latency_tables.few_shot import TransferredSpace
from edgenas.latency_tables.kernels import kernel_class, spec_of
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline import transferred_space
from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.predict import predict
from edgenas.pipeline.profile import telling_first
from edgenas.pipeline.profile_plan import Target, plan_space
from edgenas.records import Prediction
from edgenas.search_spaces import RestrictedSpace, build_onnx, get_space
from edgenas.workspace import Workspace

SPACE = get_space("mobilenetv3-demo")
DEPTHWISE = 3.0  # the new device is so much slower at depthwise convolutions than its donor


def add(workspace: Workspace, device: str, count: int, **options: float) -> Path:
    """A table of so many networks, four of five fitted to."""
    path = workspace.table_path(device)
    with LatencyTable.open(path, create=True, device=device) as table:
        fill(table, SPACE.name, count, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A donor with 56 networks, and new devices with 12: one whose profiler is of no use, one good."""
    found = Workspace(tmp_path_factory.mktemp("workspace"))
    add(found, "donor", 70)
    add(found, "local", 15, seed=1, depthwise=DEPTHWISE, profiler_noise=1.0)
    add(found, "good", 15, seed=1, depthwise=DEPTHWISE)
    return found


def truth(genomes: np.ndarray) -> np.ndarray:
    def cost(kernel: object) -> float:
        slower = kernel_class(spec_of(kernel)).startswith("depthwise")  # type: ignore[arg-type]
        return plain_ms(kernel) * (DEPTHWISE if slower else 1.0)  # type: ignore[arg-type]

    return np.array([
        sum(cost(kernel) for placed in SPACE.placed(genome) for kernel in kernels_of(placed))
        for genome in genomes
    ])  # fmt: skip


def genomes_to_judge(count: int) -> np.ndarray:
    genomes = SPACE.sample(np.random.default_rng(5), count)
    for gene, choice in enumerate(SPACE.choices):
        if choice.name.endswith("precision"):
            genomes[:, gene] = choice.options.index("fp32")
    return SPACE.canonical(genomes)


def test_donors_price_a_space_where_the_own_table_is_worse(workspace: Workspace) -> None:
    found = compiled_latency(SPACE, "local", threads=None, workspace=workspace)
    assert isinstance(found, TransferredSpace)
    transfer = found.transfer
    assert transfer.used and transfer.measured_networks == 12
    assert [one.device for one in transfer.donors] == ["donor"] and transfer.donors[0].share > 0.2
    assert transfer.leave_one_out_rmspe < (transfer.own_leave_one_out_rmspe or 9)
    genomes = genomes_to_judge(200)
    predicted, expected = found(genomes), truth(genomes)
    assert spearman(predicted, expected) > 0.97
    with LatencyTable.open(workspace.table_path("local")) as table:
        own = CompiledSpace.compile(SPACE, table, LatencyPredictor.fit(table))
    # The run's overhead is not in the truth: errors are compared after their medians.
    known = np.isfinite(own(genomes))
    ours, theirs = (np.std(np.log((one / expected)[known])) for one in (predicted, own(genomes)))
    assert np.isfinite(predicted).all() and ours < theirs
    low, high = found.interval_ms(genomes).T
    assert (low < predicted).all() and (predicted < high).all() and (low > 0).all()


def test_a_restricted_space_costs_what_its_networks_cost_in_the_whole_one(workspace: Workspace) -> None:
    gene = next(one for one in SPACE.choices if len(one.options) > 1 and not one.name.endswith("precision"))
    restricted = RestrictedSpace(SPACE, {gene.name: gene.options[1:]})
    whole, some = (
        compiled_latency(space, "local", threads=None, workspace=workspace) for space in (SPACE, restricted)
    )
    genomes = restricted.sample(np.random.default_rng(2), 50)
    same = SPACE.canonical(restricted.to_base(genomes))
    np.testing.assert_allclose(some(genomes), whole(same), rtol=1e-9)


def test_the_own_table_is_kept_where_it_is_better(workspace: Workspace) -> None:
    found = compiled_latency(SPACE, "good", threads=None, workspace=workspace)
    assert isinstance(found, CompiledSpace)
    assert found.transfer is not None and not found.transfer.used
    assert (found.transfer.own_leave_one_out_rmspe or 9) <= found.transfer.leave_one_out_rmspe
    assert "are not used" in transfer_note(found.transfer, "good")


def test_a_table_with_enough_rows_stands_alone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(self: Neighbours) -> None:
        raise AssertionError("donors were read")

    monkeypatch.setattr(Neighbours, "donors", property(unread))
    found = compiled_latency(SPACE, "donor", threads=None, workspace=workspace)
    assert isinstance(found, CompiledSpace) and found.transfer is None


def test_without_donors_nothing_changes(workspace: Workspace, tmp_path: Path) -> None:
    alone = Workspace(tmp_path)
    alone.tables.mkdir()
    alone.table_path("local").write_bytes(workspace.table_path("local").read_bytes())
    found = compiled_latency(SPACE, "local", threads=None, workspace=alone)
    assert isinstance(found, CompiledSpace) and found.transfer is None


def test_a_damaged_neighbour_is_left_out(workspace: Workspace, tmp_path: Path) -> None:
    copy = Workspace(tmp_path)
    copy.tables.mkdir()
    for device in ("donor", "local"):
        copy.table_path(device).write_bytes(workspace.table_path(device).read_bytes())
    copy.table_path("bad").write_text("no table " * 1000)
    found = compiled_latency(SPACE, "local", threads=None, workspace=copy)
    assert [one.device for one in found.transfer.donors] == ["donor"]  # type: ignore[union-attr]


def known_model(workspace: Workspace, folder: Path) -> Path:
    """A model whose kernels the tables already know, so that no device has to be asked."""
    genome = genomes_to_judge(1)[0]
    model = build_onnx(SPACE.network(genome))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    sha = hashlib.sha256(onnx.load(path).SerializeToString(deterministic=True)).hexdigest()
    kernels = tuple(kernel for placed in SPACE.placed(genome) for kernel in kernels_of(placed))
    for device in ("donor", "local"):
        with LatencyTable.open(workspace.table_path(device)) as table:
            table.add_network(
                NetworkRow(model_sha256=sha, name="m", space="models", precision="fp32", role="structure")
            )
            table.add_trace(trace_of(sha, kernels), ENVIRONMENT)
    return path


def test_a_model_is_predicted_with_the_help_of_donors(workspace: Workspace, tmp_path: Path) -> None:
    path = known_model(workspace, tmp_path)
    found = predict(path, device="local", workspace=workspace)
    assert isinstance(found, Prediction) and found.transfer is not None and found.transfer.used
    expected = truth(genomes_to_judge(1))[0]
    assert found.latency_ms == pytest.approx(expected, rel=0.25)
    assert found.interval_ms[0] < found.latency_ms < found.interval_ms[1]
    assert found.latency_ms == pytest.approx(found.overhead_ms + sum(one.latency_ms for one in found.kernels))
    assert all(one.latency_ms > 0 for one in found.kernels)
    note = transfer_note(found.transfer, "local")
    assert "only 12 networks were measured on 'local'" in note and "donor (onnxruntime, 1 threads)" in note


def test_a_short_profile_measures_first_what_tells_most(workspace: Workspace) -> None:
    target = Target(opset=17, ir_version=8, int8_scheme="u8s8")
    plan = plan_space(SPACE, "fp32", target, seed=0)
    with LatencyTable.open(workspace.table_path("local")) as table:
        neighbours = Neighbours.of(table, observe(table), workspace)
    order = telling_first(plan, neighbours, np.random.default_rng(0))
    assert sorted(one.recipe() for one in order) == sorted(one.recipe() for one in plan)
    first = order[: transferred_space.TELLING]
    assert {one.role for one in first} == {"fit"} and first != plan[: transferred_space.TELLING]
    donors_ms = transferred_space.donor_spaces(SPACE, neighbours.donors)[0]

    def spread(networks: list[object]) -> float:
        genomes = np.array([one.genome for one in networks])  # type: ignore[attr-defined]
        return float(np.std(np.log(donors_ms(genomes).latency_ms)))

    fitted = [one for one in plan if one.role == "fit"]
    assert spread(first) > spread(fitted)  # type: ignore[arg-type]
