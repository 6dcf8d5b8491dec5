"""predict on this machine: structure from the device's runtime, prices from its table."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import DeviceUnreachableError, ModelError, TableError, UnknownKernelsError
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline import predict as stage
from edgenas.pipeline import profile_plan
from edgenas.pipeline.predict import predict
from edgenas.pipeline.profile import profile
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

SPACE = get_space("mobilenetv3-demo")


def saved(path: Path, **options: object) -> Path:
    onnx.save(build_onnx(SPACE.network(SPACE.largest()), **options), path)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A table with a dozen float networks of the demo space."""
    found = Workspace(tmp_path_factory.mktemp("workspace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_plan, "_PICKED", {"fp32": 12, "int8": 12})
        patch.setattr(profile_plan, "_FITTED", {"fp32": 12, "int8": 12})
        profile(device="local", space=("mobilenetv3-demo",), precision=("fp32",), threads=1, workspace=found)
    return found


def test_a_model_is_predicted_kernel_by_kernel(tmp_path: Path, workspace: Workspace) -> None:
    found = predict(saved(tmp_path / "m.onnx", batch=None), device="local", workspace=workspace)
    low, high = found.interval_ms
    assert 0 < low < found.latency_ms < high
    assert found.structure == "device" and found.precision == "fp32" and found.threads == 1
    assert found.latency_ms == pytest.approx(found.overhead_ms + sum(one.latency_ms for one in found.kernels))
    assert {one.source for one in found.kernels} <= {"measured", "interpolated"}
    assert all(one.latency_ms > 0 for one in found.kernels)


def test_the_structure_is_asked_for_once(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "once.onnx", seed=7)
    first = predict(path, device="local", workspace=workspace)

    def unreachable(profile: DeviceProfile) -> None:
        raise DeviceUnreachableError(f"'{profile.id}' does not answer")

    monkeypatch.setattr(stage, "connect", unreachable)
    assert predict(path, device="local", workspace=workspace) == first
    with pytest.raises(DeviceUnreachableError):
        predict(saved(tmp_path / "new.onnx", seed=8), device="local", workspace=workspace)


def test_predicting_leaves_the_fit_as_it_was(tmp_path: Path, workspace: Workspace) -> None:
    path = saved(tmp_path / "m.onnx", seed=9)
    predict(path, device="local", workspace=workspace)
    with LatencyTable.open(workspace.table_path("local")) as table:
        roles = {one.name: one.role for one in table.networks().values()}
    assert roles["m.onnx"] == "structure"


def test_kernels_of_an_unknown_kind_are_named(tmp_path: Path, workspace: Workspace) -> None:
    node = onnx.helper.make_node("Erf", ["x"], ["y"], name="erf")
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    path = tmp_path / "erf.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )
    with pytest.raises(UnknownKernelsError, match=r"Erf\(1x8") as caught:
        predict(path, device="local", workspace=workspace)
    assert "edgenas profile" in caught.value.hint


def test_what_is_missing_is_said(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        predict(tmp_path / "none.onnx", device="local", workspace=workspace)
    with pytest.raises(TableError, match="there is no latency table") as caught:
        predict(saved(tmp_path / "m.onnx"), device="local", workspace=Workspace(tmp_path))
    assert caught.value.hint == "edgenas profile --device local"
    with pytest.raises(TableError, match="7 threads"):
        predict(saved(tmp_path / "m.onnx"), device="local", threads=7, workspace=workspace)
