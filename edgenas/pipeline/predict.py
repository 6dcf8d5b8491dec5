"""Predicts a model's latency on a device from the device's latency table."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Literal

import onnx

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import DeviceUnreachableError
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.onnx_input import read_model, with_batch_one
from edgenas.progress import warn
from edgenas.records import KernelTrace, Precision, Prediction
from edgenas.workspace import Workspace

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
_HOSTS = {"onnxruntime": "local", "openvino": "local-openvino"}


def predict(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    threads: int | None = None,
    workspace: Workspace | None = None,
) -> Prediction:
    """Latency of ``model`` with a 90 % interval, and what every kernel adds to it.

    Which kernels the model becomes is read from the device's own runtime, once; where the device
    does not answer this machine's runtime is asked instead, and ``structure`` says "host".

    Args:
        model: an ONNX file.
        device: the device; the workspace's when None.
        threads: threads to predict for; those that the table has most of when None.
        workspace: where tables and device profiles are; the current folder when None.

    Raises:
        ModelError: the file is no ONNX model, or has a dynamic dimension besides the batch.
        TableError: there is no table of the device, or it is damaged.
        UnknownKernelsError: the model has kernels that nothing in the table can price.
    """
    path = Path(model)
    loaded = with_batch_one(read_model(path), path)
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    profile = load_profile(device, workspace)
    with LatencyTable.open(workspace.table_path(device)) as table:
        predictor = LatencyPredictor.fit(table, threads=threads)
        trace, structure = _structure(loaded, path, table, predictor, profile, workspace)
        return predictor.predict(trace, model=path.name, precision=precision_of(loaded), structure=structure)


def precision_of(model: onnx.ModelProto) -> Precision:
    """``int8`` where any node computes in or converts to integers of eight bits."""
    return "int8" if any(node.op_type in _QUANTIZED for node in model.graph.node) else "fp32"


def _structure(
    model: onnx.ModelProto,
    path: Path,
    table: LatencyTable,
    predictor: LatencyPredictor,
    profile: DeviceProfile,
    workspace: Workspace,
) -> tuple[KernelTrace, Literal["device", "host"]]:
    """The model's kernels: from the table, else from the device, else from this machine."""
    content = model.SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(content).hexdigest()
    known = table.trace_of(sha256, fingerprint=predictor.fingerprint, threads=predictor.threads)
    if known is not None:
        return known, "device"
    with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
        file = Path(folder) / f"{sha256}.onnx"
        file.write_bytes(content)
        try:
            return _from_device(file, path, table, predictor, profile), "device"
        except DeviceUnreachableError as error:
            host = _HOSTS[profile.runtime]
            if profile.id == host:
                raise
            warn(f"{error.message}; the kernels are those of this machine's runtime")
            return _traced(file, load_profile(host, workspace), predictor.threads), "host"


def _from_device(
    file: Path, path: Path, table: LatencyTable, predictor: LatencyPredictor, profile: DeviceProfile
) -> KernelTrace:
    with connect(profile) as agent:
        sha256 = agent.ship(file)
        trace = agent.trace(sha256, threads=predictor.threads, runs=1)
        if agent.environment.fingerprint() != predictor.fingerprint:
            warn(
                f"'{profile.id}' is not as it was when it was profiled (runtime"
                f" {agent.environment.runtime_version}); edgenas profile --device {profile.id} measures it anew"
            )
        table.begin_run(f"predict {path.name}")
        row = NetworkRow(
            model_sha256=sha256, name=path.name, space="models", precision="fp32", role="structure"
        )
        table.add_network(row)
        table.add_trace(trace, agent.environment)
        return trace


def _traced(file: Path, profile: DeviceProfile, threads: int) -> KernelTrace:
    with connect(profile) as agent:
        return agent.trace(agent.ship(file), threads=threads, runs=1)
