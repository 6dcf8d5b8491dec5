"""Predicts a model's latency on a device from the device's latency table."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import DeviceUnreachableError
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.latency import refuse_foreign_table
from edgenas.pipeline.onnx_input import read_model, with_batch_one
from edgenas.progress import warn
from edgenas.records import KernelTrace, Precision, Prediction
from edgenas.workspace import Workspace

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
HOSTS = {"onnxruntime": "local", "openvino": "local-openvino"}


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
    refuse_foreign_table(device, workspace)
    profile = load_profile(device, workspace)
    with LatencyTable.open(workspace.table_path(device)) as table:
        predictor = LatencyPredictor.fit(table, threads=threads)
        source = _StructureSource(table, predictor, profile, workspace)
        trace, structure = source.kernels(loaded, path.name)
        return predictor.predict(trace, model=path.name, precision=precision_of(loaded), structure=structure)


def precision_of(model: onnx.ModelProto) -> Precision:
    """``int8`` where any node computes in or converts to integers of eight bits."""
    return "int8" if any(node.op_type in _QUANTIZED for node in model.graph.node) else "fp32"


@dataclass(frozen=True)
class _StructureSource:
    """Finds out which kernels a model becomes on a device."""

    table: LatencyTable
    predictor: LatencyPredictor
    profile: DeviceProfile
    workspace: Workspace

    def kernels(self, model: onnx.ModelProto, name: str) -> tuple[KernelTrace, Literal["device", "host"]]:
        """The model's kernels: from the table, else from the device, else from this machine."""
        content = model.SerializeToString(deterministic=True)
        sha256 = hashlib.sha256(content).hexdigest()
        known = self.table.trace_of(
            sha256, fingerprint=self.predictor.fingerprint, threads=self.predictor.threads
        )
        if known is not None:
            return known, "device"
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            file = Path(folder) / f"{sha256}.onnx"
            file.write_bytes(content)
            try:
                return self._from_device(file, name, precision_of(model)), "device"
            except DeviceUnreachableError as error:
                return self._from_host(file, error), "host"

    def _from_device(self, file: Path, name: str, precision: Precision) -> KernelTrace:
        with connect(self.profile) as agent:
            sha256 = agent.ship(file)
            trace = agent.trace(sha256, threads=self.predictor.threads, runs=1)
            if agent.environment.fingerprint() != self.predictor.fingerprint:
                warn(
                    f"'{self.profile.id}' is not as it was when it was profiled; measure it anew with"
                    f" edgenas profile --device {self.profile.id}"
                )
            self.table.begin_run(f"predict {name}")
            row = NetworkRow(
                model_sha256=sha256, name=name, space="models", precision=precision, role="structure"
            )
            self.table.add_network(row)
            self.table.add_trace(trace, agent.environment)
            return trace

    def _from_host(self, file: Path, unreachable: DeviceUnreachableError) -> KernelTrace:
        host = HOSTS[self.profile.runtime]
        if self.profile.id == host:
            raise unreachable
        warn(f"{unreachable.message}; the kernels are those of this machine's runtime")
        with connect(load_profile(host, self.workspace)) as agent:
            return agent.trace(agent.ship(file), threads=self.predictor.threads, runs=1)
