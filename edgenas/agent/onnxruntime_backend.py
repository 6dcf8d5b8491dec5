"""ONNX Runtime on the CPU."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any, ContextManager, List, Sequence, Tuple

import numpy as np

from .backend import Backend, Feed, Port, Session, Trace, random_feed
from .cpu import on_core, own_cores
from .failures import AgentError, reported_as
from .onnx_wire import read_graph
from .onnxruntime_trace import ProfiledRun, runs_of, traced_kernels

_PROVIDERS = ["CPUExecutionProvider"]
_TRACE_WARMUP = 3
_OLDEST = (1, 16)
# Long enough for the pauses within a run, short enough not to be in the way of the next session's
# threads. Versions older than the entry ignore it and spin for 3 to 500 ms, by processor.
# Source: https://github.com/microsoft/onnxruntime/pull/27916
_SPIN_US = 1000
_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(uint16)": "uint16", "tensor(int16)": "int16",
    "tensor(uint32)": "uint32", "tensor(int32)": "int32", "tensor(uint64)": "uint64",
    "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


def version_of(text: str) -> Tuple[int, ...]:
    """The leading numbers of a version, such as (1, 16) of ``1.16.3+cpu``."""
    numbers = re.match(r"(\d+)\.(\d+)", text)
    return tuple(map(int, numbers.groups())) if numbers else ()


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime's CPU execution provider, sequential execution, one pool of ``threads`` threads."""

    name = "onnxruntime"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise AgentError("device", f"onnxruntime cannot be imported: {error}") from error
        if version_of(onnxruntime.__version__) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise AgentError(
                "device", f"onnxruntime {onnxruntime.__version__} is too old, {oldest} is needed"
            )
        self._ort = onnxruntime
        onnxruntime.set_default_logger_severity(4)

    def version(self) -> str:
        return str(self._ort.__version__)

    def load(self, model: Path, threads: int, *, optimized: bool = True) -> Session:
        cores = own_cores(threads)
        options = self._options(threads, cores)
        if not optimized:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return OnnxRuntimeSession(self._session(model, options), cores)

    def trace(self, model: Path, threads: int, *, runs: int, seed: int) -> Trace:
        with tempfile.TemporaryDirectory(prefix="edgenas-trace-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            cores = own_cores(threads)
            options = self._options(threads, cores)
            options.optimized_model_filepath = str(optimized)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            profiled = self._profile(model, options, cores, runs, seed)
            graph = read_graph(optimized.read_bytes())
        kernels = traced_kernels(profiled, graph)
        return Trace(kernels, min(run.duration_us for run in profiled) / 1e3)

    def _profile(
        self, model: Path, options: Any, cores: List[int], runs: int, seed: int
    ) -> List[ProfiledRun]:
        inference = self._session(model, options)
        session = OnnxRuntimeSession(inference, cores)
        session.bind(random_feed(session.inputs, seed))
        with session.placed():
            for _ in range(runs + _TRACE_WARMUP if runs > 1 else runs):
                session.run()
        events = json.loads(Path(inference.end_profiling()).read_bytes())
        return runs_of(events)[-runs:]

    def _options(self, threads: int, cores: Sequence[int] = ()) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        if cores:
            # Source: onnxruntime_session_options_config_keys.h; cores count from 1, the caller is not one.
            workers = ";".join(str(core + 1) for core in cores[1:])
            options.add_session_config_entry("session.intra_op_thread_affinities", workers)
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        return options

    def _session(self, model: Any, options: Any) -> Any:
        source = str(model) if isinstance(model, Path) else model
        with reported_as("model", "ONNX Runtime refuses the model"):
            return self._ort.InferenceSession(source, options, providers=_PROVIDERS)

    def _accepts(self, model: bytes) -> bool:
        try:
            self._session(model, self._options(1))
        except AgentError:
            return False
        return True


class OnnxRuntimeSession(Session):
    """One ``InferenceSession``; ``cores`` are its threads' own, the caller's first, where they have any."""

    def __init__(self, inference: Any, cores: Sequence[int]) -> None:
        self._inference, self._cores = inference, cores
        self._names = [output.name for output in inference.get_outputs()]
        self._feed: Feed = {}
        self.inputs = [_port(value) for value in inference.get_inputs()]

    def bind(self, feed: Feed) -> None:
        self._feed = {name: np.ascontiguousarray(array) for name, array in feed.items()}

    def run(self) -> None:
        self._inference.run(None, self._feed)

    def placed(self) -> ContextManager[None]:
        return on_core(self._cores[0]) if self._cores else contextlib.nullcontext()

    def outputs(self) -> Feed:
        with self.placed():
            values = self._inference.run(self._names, self._feed)
        return {name: np.asarray(values[position]) for position, name in enumerate(self._names)}


def _port(value: Any) -> Port:
    if value.type not in _DTYPES:
        raise AgentError("model", f"input '{value.name}' is a {value.type}, which the agent cannot feed")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return Port(value.name, _DTYPES[value.type], shape)
