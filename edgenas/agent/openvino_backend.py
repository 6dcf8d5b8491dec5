"""OpenVINO on the CPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import numpy as np

from .backend import Backend, Feed, Port, Session, Trace, random_feed
from .failures import AgentError, reported_as
from .openvino_trace import RunningCounters, traced_kernels

# The plugin's counters are means since it compiled the model, which one disturbed moment spoils; where
# the runs took much longer than the fastest of them, another compiled copy is asked, and where none of
# them was left alone, the half that took least counts.
_TRACE_INSTANCES = 4
_STEADY = 1.06
_TRACE_WARMUP = 3
_CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}
_DTYPES = {
    "f32": "float32", "f64": "float64", "f16": "float16", "u8": "uint8", "i8": "int8", "u16": "uint16",
    "i16": "int16", "u32": "uint32", "i32": "int32", "u64": "uint64", "i64": "int64", "boolean": "bool",
}  # fmt: skip


class OpenVinoBackend(Backend):
    """OpenVINO's CPU plugin with the latency hint: one stream of ``threads`` threads."""

    name = "openvino"

    def __init__(self, float_type: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise AgentError("device", f"openvino cannot be imported: {error}") from error
        self._openvino = openvino
        self._core = openvino.Core()
        self.float_type = float_type
        offered = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if float_type != "f32" and _CAPABILITIES.get(float_type) not in offered:
            raise AgentError(
                "device", f"its CPU does not compute in {float_type}; it offers {', '.join(offered)}"
            )

    def version(self) -> str:
        return str(self._openvino.__version__).split("-", 1)[0]

    def load(self, model: Path, threads: int, *, optimized: bool = True) -> Session:
        if not optimized:
            raise AgentError("device", "OpenVINO has no switch that turns its graph optimization off")
        network = self._read(model)
        return OpenVinoSession(self._compile(network, threads, {}))

    def trace(self, model: Path, threads: int, *, runs: int, seed: int) -> Trace:
        network = self._read(model)
        copies: List[_Copy] = []
        while len(copies) < (_TRACE_INSTANCES if runs > 1 else 1) and not any(map(_steady, copies)):
            compiled = self._compile(network, threads, {"PERF_COUNT": True})
            copies.append(_counted(OpenVinoSession(compiled), runs, seed))
        chosen = list(filter(_steady, copies)) or sorted(copies, key=_total_s)[: -(-len(copies) // 2)]
        kernels = traced_kernels(
            compiled.get_runtime_model(), network, [copy.latencies_us for copy in chosen]
        )
        return Trace(kernels, 1e3 * min(min(copy.runs_s) for copy in copies))

    def _read(self, model: Path) -> Any:
        with reported_as("model", "OpenVINO cannot read the model"):
            network = self._core.read_model(str(model))
        dynamic = {
            port.any_name: _static_batch(port) for port in network.inputs if port.partial_shape.is_dynamic
        }
        if dynamic:
            network.reshape(dynamic)
        return network

    def _compile(self, network: Any, threads: int, extra: Dict[str, Any]) -> Any:
        properties = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        # Fixed precision: a plugin that turns f32 into bf16 by itself would measure another model.
        properties["INFERENCE_PRECISION_HINT"] = self.float_type
        with reported_as("model", "OpenVINO cannot compile the model"):
            return self._core.compile_model(network, "CPU", {**properties, **extra})

    def _accepts(self, model: bytes) -> bool:
        try:
            with reported_as("model", "OpenVINO cannot read the model"):
                self._core.read_model(model)
        except AgentError:
            return False
        return True


class OpenVinoSession(Session):
    """One compiled model with one request."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        self._outputs = [(port, _name(port)) for port in compiled.outputs]
        self._ports = {_name(port): port for port in compiled.inputs}
        self.inputs = [_input(port) for port in compiled.inputs]

    def bind(self, feed: Feed) -> None:
        from openvino import Tensor

        for name, array in feed.items():
            self.request.set_tensor(self._ports[name], Tensor(np.ascontiguousarray(array)))

    def run(self) -> None:
        self.request.infer()

    def outputs(self) -> Feed:
        self.request.infer()
        return {name: np.array(self.request.get_tensor(port).data) for port, name in self._outputs}


class _Copy(NamedTuple):
    """The mean time of each node in us after the warm-up, and how long each of those runs took in s."""

    latencies_us: Dict[str, float]
    runs_s: List[float]


def _total_s(copy: _Copy) -> float:
    return sum(copy.runs_s)


def _steady(copy: _Copy) -> bool:
    """Whether nothing got in the way of the runs."""
    return _total_s(copy) <= _STEADY * len(copy.runs_s) * min(copy.runs_s)


def _counted(session: OpenVinoSession, runs: int, seed: int) -> _Copy:
    session.bind(random_feed(session.inputs, seed))
    counters, runs_s = RunningCounters(), []
    for _ in range(_TRACE_WARMUP if runs > 1 else 0):
        session.run()
    if runs > 1:
        counters.start(session.request.profiling_info, _TRACE_WARMUP)
    for _ in range(runs):
        start = time.perf_counter()
        session.run()
        runs_s.append(time.perf_counter() - start)
    total = runs + _TRACE_WARMUP if runs > 1 else runs
    return _Copy(counters.latencies_us(session.request.profiling_info, total), runs_s)


def _name(port: Any) -> str:
    return str(port.any_name)


def _input(port: Any) -> Port:
    dtype = port.element_type.get_type_name()
    if dtype not in _DTYPES:
        raise AgentError("model", f"input '{_name(port)}' is {dtype}, which the agent cannot feed")
    shape = port.partial_shape
    sizes = tuple(None if size.is_dynamic else size.get_length() for size in shape)
    return Port(_name(port), _DTYPES[dtype], sizes)


def _static_batch(port: Any) -> List[int]:
    """The shape with 1 for a symbolic batch.

    Raises:
        AgentError: another dimension is symbolic.
    """
    sizes = [-1 if size.is_dynamic else size.get_length() for size in port.partial_shape]
    if -1 in sizes[1:]:
        raise AgentError("model", f"input '{_name(port)}' has a dynamic dimension besides the batch: {sizes}")
    return [1 if size == -1 else size for size in sizes]
