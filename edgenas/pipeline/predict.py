"""Predicts a model's latency on a device from the device's latency table."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import onnx
from msgspec.structs import replace

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import DeviceError, DeviceUnreachableError, UnknownKernelsError
from edgenas.files import write_atomically
from edgenas.latency_tables.donors import Donor
from edgenas.latency_tables.kernels import KernelSpec, spec_of
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.latency import refuse_foreign_table
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.onnx_input import precision_of, read_model, with_batch_one
from edgenas.pipeline.transferred_model import transferred_model
from edgenas.progress import warn
from edgenas.records import KernelTrace, Precision, Prediction
from edgenas.reporting import render_prediction
from edgenas.workspace import Workspace

HOSTS = {"onnxruntime": "local", "openvino": "local-openvino"}


def predict(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    threads: int | None = None,
    html: str | os.PathLike[str] | None = None,
    workspace: Workspace | None = None,
) -> Prediction:
    """Latency of ``model`` with a 90 % interval, and what every kernel adds to it.

    Which kernels the model becomes is read from the device's own runtime, once; where the device
    does not answer this machine's runtime is asked instead, and ``structure`` says "host".

    Args:
        model: an ONNX file.
        device: the device; the workspace's when None.
        threads: threads to predict for; those that the table has most of when None.
        html: where to write the breakdown as one self-contained page; nowhere when None.
        workspace: where tables and device profiles are; the current folder when None.

    Raises:
        ModelError: the file is no ONNX model, or has a dynamic dimension besides the batch.
        TableError: there is no table of the device, or it is damaged.
        UnknownKernelsError: the model has kernels that nothing in the table can price.
        UsageError: ``html`` is asked for without the packages of the extra ``report``.
    """
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    try:
        found = _predicted(Path(model), device, threads, workspace)
    except UnknownKernelsError as error:
        hint = f"measure them: edgenas profile --device {device} --model {model}"
        raise UnknownKernelsError(error.kernels, device=device, hint=hint) from error
    if html is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomically(Path(html), render_prediction(found, created_at=now))
    return found


def _predicted(path: Path, device: str, threads: int | None, workspace: Workspace) -> Prediction:
    loaded = with_batch_one(read_model(path), path)
    refuse_foreign_table(device, workspace)
    profile = load_profile(device, workspace)
    with LatencyTable.open(workspace.table_path(device)) as table:
        predictor = fitted(table, threads=threads)
        source = _StructureSource(table, predictor, profile, workspace)
        trace, structure = source.kernels(loaded, path.name)
        precision = precision_of(loaded)
        observations = observe(table, threads=predictor.threads, fingerprint=predictor.fingerprint)
        transferred = transferred_model(
            model_sha256=_sha256(loaded),
            specs=[spec_of(kernel) for kernel in trace.kernels],
            precision=precision,
            observations=observations,
            neighbours=Neighbours.of(table, observations, workspace),
            structure_on=lambda donor: source.kernels_on(donor, loaded),
        )
        if transferred is not None and transferred.transfer.used:
            return transferred.prediction(predictor, trace, path.name, precision, structure)
        found = predictor.predict(trace, model=path.name, precision=precision, structure=structure)
        return replace(found, transfer=transferred.transfer if transferred is not None else None)


def _sha256(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


@contextlib.contextmanager
def _written(model: onnx.ModelProto) -> Iterator[Path]:
    """The model as a file, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
        file = Path(folder) / f"{_sha256(model)}.onnx"
        file.write_bytes(model.SerializeToString(deterministic=True))
        yield file


@dataclass(frozen=True)
class _StructureSource:
    """Finds out which kernels a model becomes on a device."""

    table: LatencyTable
    predictor: LatencyPredictor
    profile: DeviceProfile
    workspace: Workspace

    def kernels(self, model: onnx.ModelProto, name: str) -> tuple[KernelTrace, Literal["device", "host"]]:
        """The model's kernels: from the table, else from the device, else from this machine."""
        sha256 = _sha256(model)
        known = self.table.trace_of(
            sha256, fingerprint=self.predictor.fingerprint, threads=self.predictor.threads
        )
        if known is not None:
            return known, "device"
        with _written(model) as file:
            try:
                return self._from_device(file, name, precision_of(model)), "device"
            except DeviceUnreachableError as error:
                return self._from_host(file, error), "host"

    def kernels_on(self, donor: Donor, model: onnx.ModelProto) -> list[KernelSpec] | None:
        """The kernels that the model becomes on a donor, where that is this machine; else None."""
        if donor.device not in HOSTS.values():
            return None
        try:
            with _written(model) as file, connect(load_profile(donor.device, self.workspace)) as agent:
                trace = agent.trace(agent.ship(file), threads=donor.threads, runs=1)
        except DeviceError as error:
            warn(f"'{donor.device}' does not help: {error.message}")
            return None
        return [spec_of(kernel) for kernel in trace.kernels]

    def _from_device(self, file: Path, name: str, precision: Precision) -> KernelTrace:
        with connect(self.profile) as agent:
            sha256 = agent.ship(file)
            trace = agent.trace(sha256, threads=self.predictor.threads, runs=1)
            if agent.environment.fingerprint() != self.predictor.fingerprint:
                warn(
                    f"'{self.profile.id}' or the way of measuring is not what it was; profile again:"
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
