"""Whether a device's integer kernels compute what the operators are defined to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from edgenas.quantization.inputs import Inputs
from edgenas.quantization.reference_run import Arrays, run_batches
from edgenas.records import Environment

SAMPLES = 8
SATURATING = 1.5  # times the distance that the operators' definition gives


def defined_distance(model: onnx.ModelProto, candidate: Path, samples: Inputs) -> float:
    """Relative L2 distance of a QDQ model to ``model`` where every operator runs as it is defined.

    Without graph optimization ONNX Runtime executes Q and DQ as operators of their own and the rest in
    float: nothing can saturate. So this is the same on every host.
    """
    names = [value.name for value in model.graph.output]
    reference = _joined(list(run_batches(model, names, samples)), names)
    meant = _joined(list(run_batches(onnx.load(str(candidate)), names, samples, fused=False)), names)
    return float(np.sqrt(np.mean([_squared(reference[name], meant[name]) for name in names])))


def named(types: str, found: float, meant: float, environment: Environment) -> str | None:
    """A sentence where the device's distance is much more than the definition gives."""
    if found < SATURATING * meant:
        return None
    no_vnni = environment.architecture == "x86_64" and not any("vnni" in f for f in environment.cpu_features)
    reason = "it has no VNNI, 16-bit sums of products saturate; " if no_vnni else ""
    return (
        f"this CPU computes {types} inexactly ({reason}output distance {found:.3g}, {meant:.3g} as the "
        "operators are defined)"
    )


def _joined(batches: list[Arrays], names: list[str]) -> Arrays:
    return {name: np.concatenate([np.atleast_1d(batch[name]) for batch in batches]) for name in names}


def _squared(reference: np.ndarray, output: np.ndarray) -> float:
    """Energy of the error over the reference's; the share that differs where it is no float."""
    if reference.shape != output.shape:
        return 1.0
    if reference.dtype.kind != "f":
        return float(np.mean(reference != output)) if reference.size else 0.0
    wide = reference.astype(np.float64)
    return float(np.sum((wide - output) ** 2) / max(np.sum(wide**2), 1e-30))
