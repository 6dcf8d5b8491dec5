"""Outputs of a model over arrays that are larger than memory, a slice at a time."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from .backend import Array, Feed, Port, Session, fixed_shape
from .failures import AgentError

# One reply carries about this much, or what this long gives, whichever comes first.
_REPLY_BYTES = 4 << 20
_REPLY_S = 1.0
_LARGEST_BATCH_BYTES = 40 << 20


class Evaluation:
    """A session and the arrays that are fed to it.

    Args:
        session: the loaded model.
        arrays: one .npy file for each input, all of one length.
        batch: items in one run, where the model leaves it open.

    Raises:
        AgentError: names, shapes or types do not fit the model.
    """

    def __init__(self, session: Session, arrays: Dict[str, Path], batch: int) -> None:
        self._session = session
        self._arrays = {name: _opened(name, path) for name, path in arrays.items()}
        self._ports = {port.name: port for port in session.inputs}
        if set(self._arrays) != set(self._ports):
            raise AgentError(
                "input", f"the model's inputs are {sorted(self._ports)}, given were {sorted(self._arrays)}"
            )
        self.items = _common_length(self._arrays)
        self._batch, self._fixed = _batch_of(list(self._ports.values()), batch)
        for name, array in self._arrays.items():
            _check_fit(self._ports[name], array)

    def outputs(self, start: int) -> Tuple[List[Dict[str, Any]], int]:
        """Batches of outputs from item ``start`` on, and the item where the next reply starts."""
        batches, size, begun = [], 0, time.monotonic()
        while start < self.items and size < _REPLY_BYTES and time.monotonic() - begun < _REPLY_S:
            outputs = self._run(start, min(start + self._batch, self.items))
            size += sum(array.nbytes for array in outputs.values())
            if size > _LARGEST_BATCH_BYTES:
                raise AgentError("input", f"one batch gives {size >> 20} MiB; ask for a smaller batch")
            batches.append({name: _encoded(array) for name, array in outputs.items()})
            start += self._batch
        return batches, min(start, self.items)

    def _run(self, start: int, stop: int) -> Feed:
        self._session.bind({name: self._slice(name, start, stop) for name in self._ports})
        return {
            name: _rows(array, stop - start, self._batch) for name, array in self._session.outputs().items()
        }

    def _slice(self, name: str, start: int, stop: int) -> Array:
        array = np.asarray(self._arrays[name][start:stop], dtype=self._ports[name].dtype)
        missing = self._batch - len(array)
        if self._fixed and missing:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        return array


def _opened(name: str, path: Path) -> Array:
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise AgentError("input", f"the array for input '{name}' cannot be read: {error}") from error
    if array.ndim == 0:
        raise AgentError("input", f"the array for input '{name}' has no first axis")
    return array


def _common_length(arrays: Dict[str, Array]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise AgentError("input", f"the inputs differ in length: {lengths}")
    return next(iter(lengths.values()))


def _batch_of(ports: List[Port], asked: int) -> Tuple[int, bool]:
    """Items in one run and whether the model fixes it."""
    fixed = [port.shape[0] for port in ports if port.shape and port.shape[0] is not None]
    return (int(fixed[0]), True) if fixed else (asked, False)


def _check_fit(port: Port, array: Array) -> None:
    expected = fixed_shape(port)[1:]
    if array.shape[1:] != expected:
        raise AgentError("input", f"input '{port.name}' wants items of {expected}, given {array.shape[1:]}")
    if np.dtype(port.dtype).kind != array.dtype.kind and np.dtype(port.dtype).kind in "fb":
        raise AgentError("input", f"input '{port.name}' is {port.dtype}, given {array.dtype}")


def _rows(array: Array, wanted: int, batch: int) -> Array:
    """Drops the rows that only fill up a batch; outputs that do not count items are left alone."""
    return array[:wanted] if array.ndim and len(array) == batch else array


def _encoded(array: Array) -> Dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}
