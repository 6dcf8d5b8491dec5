"""The gate without a device: latency as a committed table predicts it, the same every time.

Which kernels a model becomes is read from this machine's runtime; nothing is timed. Old and new are
both read today, so that another version of the runtime changes both alike.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from edgenas.device_profiles import load_profile
from edgenas.errors import TableError, UnknownKernelsError
from edgenas.latency_tables.exchange import open_copy
from edgenas.latency_tables.kernels import spec_of
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.measuring import connect
from edgenas.pipeline.ab_test import ship_model
from edgenas.pipeline.baseline import Baseline, BaselineModel
from edgenas.pipeline.gate_findings import budget, not_judged
from edgenas.pipeline.gate_latency import LatencySource
from edgenas.pipeline.gate_limits import Allowance, require_knowable
from edgenas.pipeline.gate_model import GatedModel
from edgenas.pipeline.predict import HOSTS
from edgenas.pipeline.skeleton import seeded_model
from edgenas.records import Characterisation, CheckFinding, Environment, GateVerdict
from edgenas.workspace import Workspace

Kernels = Counter[str]


class PredictedLatency(LatencySource):
    """Latency from a table. Use it in an ``ExitStack``, which ends the runtime that is asked."""

    name = "predicted"

    def __init__(
        self,
        path: Path,
        threads: int | None,
        allowance: Allowance,
        workspace: Workspace,
        stack: contextlib.ExitStack,
    ) -> None:
        require_knowable(allowance, self.name)
        self.allowance, self.allowed = allowance, allowance.slower(self.name)
        self.table = str(path)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgenas-gate-")))
        table = stack.enter_context(open_copy(path, self.folder))
        if table.latest_environment() is None:
            raise TableError(f"{path} is empty", hint="edgenas profile fills a table")
        self.predictor = fitted(table, threads=threads)
        environment = table.latest_environment(self.predictor.fingerprint)
        assert environment is not None, "it was measured there"
        self._environment = environment
        self.device, self.runtime = self.predictor.device, self.predictor.runtime
        self.threads = self.predictor.threads
        self.agent = stack.enter_context(connect(load_profile(HOSTS[environment.runtime], workspace)))

    @property
    def environment(self) -> Environment:
        """The device when the table was measured."""
        return self._environment

    def incomparable(self, known: Baseline) -> str:
        """Device and threads; the runtime is the table's."""
        pairs = (("device", known.device, self.device), ("threads", known.threads, self.threads))
        return "; ".join(f"{what} was {was}, is {now}" for what, was, now in pairs if was != now)

    def latency(self, model: GatedModel) -> tuple[float, None]:
        """The predicted latency in ms.

        Raises:
            UnknownKernelsError: the table cannot price a kernel of the model.
        """
        return self._ms(self._kernels(model.file)), None

    def budgets(self, model: str, latency: float, found: Characterisation | None) -> list[CheckFinding]:
        """The predicted latency against its limit."""
        limit = self.allowance.latency_ms
        return [] if limit is None else [budget(model, "latency_ms", latency, limit)]

    def against(
        self, before: BaselineModel, model: GatedModel, found: Characterisation | None
    ) -> list[CheckFinding]:
        """Both predicted with today's table."""
        old_file = self.folder / "before.onnx"
        ship_model(self.agent, seeded_model(before.graph(), role="baseline"), old_file)
        new = self._kernels(model.file)
        try:
            old = self._kernels(old_file)
        except UnknownKernelsError as error:
            return [not_judged(model.name, "latency_ms", "incomparable", error.message)]
        return [self._finding(model.name, old, new)]

    def against_itself(self, model: GatedModel) -> list[CheckFinding]:
        """A prediction repeats itself: nothing to try."""
        return []

    def _kernels(self, file: Path) -> Kernels:
        trace = self.agent.trace(self.agent.ship(file), threads=self.threads, runs=1)
        keys = Counter(self.predictor.catalogue.add(spec_of(kernel)) for kernel in trace.kernels)
        self.predictor.require(keys)
        return keys

    def _ms(self, kernels: Kernels) -> float:
        return self.predictor.estimate_counts(kernels).latency_ms

    def _finding(self, model: str, old: Kernels, new: Kernels) -> CheckFinding:
        was, now = self._ms(old), self._ms(new)
        changed = {key: new[key] - old[key] for key in {*old, *new} if new[key] != old[key]}
        half = self._halfwidth_ms(old, new, now - was)
        limit = was * (1.0 + self.allowed)
        guessed = sum(not self.predictor.measured(key) for key in changed)
        verdict: GateVerdict = "pass" if now <= limit else "fail"
        note = f"{now / was:.3f}x the baseline, predicted; {len(changed)} kernels changed"
        if guessed and now - half <= limit < now + half:
            verdict = "inconclusive"
            note += f", {guessed} of them never measured: edgenas profile --model measures them"
        interval = (now - half, now + half) if changed else None
        return CheckFinding(
            model=model,
            metric="latency_ms",
            baseline=was,
            value=now,
            limit=limit,
            verdict=verdict,
            note=note,
            interval=interval,
        )

    def _halfwidth_ms(self, old: Kernels, new: Kernels, difference_ms: float) -> float:
        """Half the 90 % interval of the difference: what both networks share errs alike in both."""
        if old == new:
            return 0.0
        columns = {key: self.predictor.column(key) for key in {*old, *new}}
        changed = {key: new[key] - old[key] for key in columns if new[key] != old[key]}
        before, after = (self.predictor.design.row(kernels, columns)[0] for kernels in (old, new))
        own = self.predictor.design.row(changed, columns)[2]
        row, magnitude = (after - before)[None, :], np.array([abs(difference_ms)])
        quantile = self.predictor.quantile_of(columns)
        return float(quantile * self.predictor.deviation(row, np.array([own]), magnitude)[0])
