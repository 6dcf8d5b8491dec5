"""Finalists beside float in passes, until it is plain which are faster: what a decision rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgenas.quantization.decision import LatencyRatio, latency_ratio
from edgenas.quantization.device_scoring import Scorer
from edgenas.records import NetworkLatency

PASSES = 8  # between two looks at what they say
FEWEST_ROUNDS, MOST_ROUNDS = 6, 40  # of a pass
PASS_SECONDS = 0.5  # a state of the device that is not the usual one often lasts longer than a few rounds
TURN_SECONDS, RUNS_PER_TURN = 3e-3, 6  # about what the agent gives each model in a round
VIRTUAL_PASSES = 3  # an instruction count repeats itself to .1 %
LOOKS = 3
MOST_SECONDS = 90.0  # after which another look is not begun; what is undecided then stays float
STEADY = 1.03  # the float model's passes within this factor are of one state of the device


class Contest:
    """Measures models beside the float model; every pass loads their sessions afresh.

    The float model is the witness of each pass: where it is slower than elsewhere, something else had
    the device, and the pass counts for nothing.

    Args:
        models: files of the finalists.
        float_ms: what the float model took at best beside others in earlier batches.
    """

    def __init__(self, scorer: Scorer, models: Sequence[Path], float_ms: float) -> None:
        self._scorer, self._models, self._expected_ms = scorer, [scorer.float_model, *models], float_ms
        self._at_once = VIRTUAL_PASSES if scorer.agent.profile.virtual else PASSES
        self._rounds_per_pass = _rounds_per_pass(float_ms, len(self._models))
        self._passes: list[list[NetworkLatency]] = []

    def run(self) -> None:
        """Passes until all is plain, at most for three looks or about ``MOST_SECONDS``."""
        for _ in range(LOOKS):
            for number in range(len(self._passes), len(self._passes) + self._at_once):
                purpose = f"final pass {number}"
                self._passes.append(
                    self._scorer.latencies(
                        self._models, purpose=purpose, rounds=self._rounds_per_pass, paired=True
                    )
                )
            if self._plain() or self._spent_s() > MOST_SECONDS:
                break

    @property
    def float_latency_ms(self) -> float | None:
        """The float model's latency; None where the device cannot run it."""
        return self._latency_ms(0)

    @property
    def unsteady(self) -> str | None:
        """A sentence where the device was slower to the end than it had been before."""
        now = self.float_latency_ms
        if now is None or now <= STEADY * self._expected_ms:
            return None
        return (
            f"the device was not steady: float took {self._expected_ms:.3g} ms at first and {now:.3g} ms in "
            "the end; ratios of latencies hold, milliseconds may not"
        )

    def latency_ms(self, position: int) -> float | None:
        """Of the model at ``position`` among ``models``; None where it failed."""
        return self._latency_ms(position + 1)

    def error(self, position: int) -> str | None:
        """Why the model at ``position`` failed."""
        return next((one[position + 1].error for one in self._passes if one[position + 1].error), None)

    def float_error(self) -> str | None:
        """Why the float model failed."""
        return self.error(-1)

    def ratio(self, position: int) -> LatencyRatio | None:
        """The latency of the model at ``position`` over float's; None where it failed."""
        base, mine = self._rounds(0), self._rounds(position + 1)
        if base is None or mine is None:
            return None
        return latency_ratio(base, mine, comparisons=LOOKS * (len(self._models) - 1))

    def _plain(self) -> bool:
        ratios = [self.ratio(position) for position in range(len(self._models) - 1)]
        decided = all(ratio is None or ratio.decided for ratio in ratios)
        return decided and len(self._steady()) >= self._at_once and self.unsteady is None

    def _steady(self) -> list[int]:
        """The passes in which the float model was as fast as in its fastest."""
        found = [one[0].statistics for one in self._passes]
        medians = [statistics.latency_ms for statistics in found if statistics is not None]
        if len(medians) < len(self._passes):
            return []
        kept = [number for number, ms in enumerate(medians) if ms <= STEADY * min(medians)]
        # Where hardly two passes are alike there is no state to keep to: all count.
        return kept if len(kept) > self._at_once // 2 else list(range(len(medians)))

    def _rounds(self, position: int) -> list[tuple[float, ...]] | None:
        found = [one[position].statistics for one in self._passes]
        rounds = [statistics.rounds_ms for statistics in found if statistics is not None]
        return [rounds[number] for number in self._steady()] if len(rounds) == len(found) else None

    def _latency_ms(self, position: int) -> float | None:
        rounds = self._rounds(position)
        return None if not rounds else float(np.median(np.concatenate(rounds)))

    def _spent_s(self) -> float:
        """About how long the passes took: repeated from what they measured, not from the clock."""
        measured = [one.statistics for models in self._passes for one in models if one.statistics is not None]
        return sum(found.latency_ms * found.runs for found in measured) / 1e3


def _rounds_per_pass(float_ms: float, models: int) -> int:
    turn_s = max(TURN_SECONDS, RUNS_PER_TURN * float_ms / 1e3)
    return int(np.clip(round(PASS_SECONDS / (turn_s * models)), FEWEST_ROUNDS, MOST_ROUNDS))
