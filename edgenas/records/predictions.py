"""What a table makes of a network."""

from __future__ import annotations

from typing import Literal

from edgenas.records.base import Record


class DonorShare(Record):
    """A table that helped to price another device, and its share (0..1) of the mean prediction."""

    device: str
    runtime: str
    threads: int
    share: float


class TransferSummary(Record):
    """How a device with few measurements is priced: with the help of other tables, or alone.

    Both errors are root mean squares of the relative errors of the ``measured_networks``, each predicted
    without itself: with the donors, and by the device's own table alone (None where that cannot price
    all of them). The smaller one decides whether the donors are ``used``.
    """

    measured_networks: int
    used: bool
    donors: tuple[DonorShare, ...]
    leave_one_out_rmspe: float
    own_leave_one_out_rmspe: float | None


class KernelPrediction(Record):
    """The predicted latency of one kernel and where the number comes from."""

    name: str
    layer: str
    kind: str
    latency_ms: float
    source: Literal["measured", "interpolated"]


class LayerPrediction(Record):
    """The predicted latency of one layer: of its ``kernels``, and of those that were ``measured``."""

    layer: str
    latency_ms: float
    measured_ms: float
    kernels: int


class Prediction(Record):
    """Predicted latency of one model with a 90 % interval and its parts.

    ``interpolated_share`` is of the time of all kernels. ``transfer`` says how other tables helped where
    few networks were measured on the device.
    """

    model: str
    device: str
    runtime: str
    precision: str
    threads: int
    latency_ms: float
    interval_ms: tuple[float, float]
    overhead_ms: float
    interpolated_share: float
    kernels: tuple[KernelPrediction, ...]
    structure: Literal["device", "host"] = "device"
    transfer: TransferSummary | None = None
    virtual_clock: bool = False

    def layers(self) -> tuple[LayerPrediction, ...]:
        """The kernels summed by layer, in the order of execution.

        Where the model's builder named no layers, the path of the kernel's name stands for one.
        """
        found: dict[str, list[KernelPrediction]] = {}
        for kernel in self.kernels:
            name = kernel.layer or kernel.name.rpartition("/")[0] or kernel.kind
            found.setdefault(name, []).append(kernel)
        return tuple(
            LayerPrediction(
                layer=name,
                latency_ms=sum(one.latency_ms for one in kernels),
                measured_ms=sum(one.latency_ms for one in kernels if one.source == "measured"),
                kernels=len(kernels),
            )
            for name, kernels in found.items()
        )


class PredictionError(Record):
    """Held-out error of a table: predicted against measured on networks it was not fitted to.

    ``within_5`` and ``within_10`` are shares of networks; ``repeat_within_5`` the machine's own
    (half of the rounds against the other half) on the same networks. ``spearman`` is None where
    there is no rank, as below two networks.
    """

    networks: int
    within_5: float
    within_10: float
    rmspe: float
    spearman: float | None
    interval_coverage: float
    repeat_within_5: float
    repeat_within_10: float


class NetworkPoint(Record):
    """One network as the table predicts it (with its 90 % interval) and as the device measured it.

    ``held_out`` says that the table was not fitted to it.
    """

    name: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    held_out: bool = True
    precision: str = ""
