"""What a runtime has to be able to do: load a model, run it, show its kernels."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ContextManager, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .failures import AgentError
from .versions import newest_accepted

Array = npt.NDArray[Any]
Feed = Dict[str, Array]


class Port(NamedTuple):
    """One input of a model; symbolic dimensions are None."""

    name: str
    dtype: str
    shape: Tuple[Any, ...]


class Trace(NamedTuple):
    """Kernels (``TracedKernel`` records) and the latency of the whole runs that showed them."""

    kernels: List[Dict[str, Any]]
    run_latency_ms: float


class Session(ABC):
    """A loaded model."""

    inputs: Sequence[Port]

    @abstractmethod
    def bind(self, feed: Feed) -> None:
        """Takes the inputs of all the runs that follow."""

    @abstractmethod
    def run(self) -> None:
        """Runs once on the bound inputs; this is what is timed."""

    def placed(self) -> ContextManager[None]:
        """Keeps the calling thread off the cores that are the session's other threads' own."""
        return contextlib.nullcontext()

    @abstractmethod
    def outputs(self) -> Feed:
        """Runs once on the bound inputs and gives copies of the outputs by name."""


class Backend(ABC):
    """A runtime. Its package is imported when it is first used, not before.

    ``float_type`` is what it computes float models in: f32, bf16 or f16.
    """

    name: str
    float_type = "f32"

    @abstractmethod
    def version(self) -> str:
        """The runtime's version."""

    @functools.cached_property
    def supported(self) -> Tuple[int, int]:
        """The highest ONNX IR version and opset that the runtime loads, found by trying once."""
        return newest_accepted(self._accepts)

    @abstractmethod
    def _accepts(self, model: bytes) -> bool:
        """Whether the runtime loads a model."""

    @abstractmethod
    def load(self, model: Path, threads: int, *, optimized: bool = True) -> Session:
        """Loads a model with a fixed number of threads.

        Raises:
            AgentError: the runtime refuses the model.
        """

    @abstractmethod
    def trace(self, model: Path, threads: int, *, runs: int, seed: int) -> Trace:
        """Runs a model with the runtime's own profiler and reads the kernels that it executed."""


def get_backend(name: str, float_type: str = "f32") -> Backend:
    """The backend with this name.

    Raises:
        AgentError: there is none, or it does not compute in ``float_type``.
    """
    if name == "onnxruntime":
        from .onnxruntime_backend import OnnxRuntimeBackend

        if float_type != "f32":
            raise AgentError(
                "request", f"ONNX Runtime computes in the model's own types, not in {float_type}"
            )
        return OnnxRuntimeBackend()
    if name == "openvino":
        from .openvino_backend import OpenVinoBackend

        return OpenVinoBackend(float_type)
    raise AgentError("request", f"there is no backend {name!r}; known: onnxruntime, openvino")


def fixed_shape(port: Port, batch: int = 1) -> Tuple[int, ...]:
    """The shape of an input with ``batch`` for a symbolic first dimension.

    Raises:
        AgentError: another dimension is symbolic.
    """
    shape = [batch if position == 0 and size is None else size for position, size in enumerate(port.shape)]
    if any(size is None for size in shape):
        raise AgentError(
            "model", f"input '{port.name}' has a dynamic dimension besides the batch: {list(port.shape)}"
        )
    return tuple(shape)


def random_feed(inputs: Sequence[Port], seed: int) -> Feed:
    """One seeded input of every kind: floats in [0, 1), bytes over their range, ones for indices."""
    generator = np.random.default_rng(seed)
    return {port.name: _random_array(generator, port) for port in inputs}


def _random_array(generator: np.random.Generator, port: Port) -> Array:
    shape, dtype = fixed_shape(port), np.dtype(port.dtype)
    if dtype.kind == "f":
        return generator.random(shape, dtype=np.float32).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max + 1, shape, dtype=dtype)
    return np.ones(shape, dtype=dtype)
