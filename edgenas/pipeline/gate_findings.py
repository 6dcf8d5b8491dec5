"""How the gate judges what needs no repeated measurement: counts, bytes, operators, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgenas.records import CheckFinding, GateVerdict

WORST_FIRST: tuple[GateVerdict, ...] = ("fail", "incomparable", "inconclusive", "pass")


def worst(verdicts: Sequence[GateVerdict]) -> GateVerdict:
    """The verdict that decides; ``pass`` where there is none."""
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), "pass")


def budget(
    model: str, metric: str, value: float, limit: float, *, relative_halfwidth: float = 0.0
) -> CheckFinding:
    """An absolute limit, whatever the baseline says.

    Args:
        relative_halfwidth: how well the value is known; a limit within it is inconclusive.
    """
    low, high = value * (1.0 - relative_halfwidth), value * (1.0 + relative_halfwidth)
    verdict: GateVerdict = "fail" if low > limit else "pass" if high <= limit else "inconclusive"
    return CheckFinding(
        model=model,
        metric=f"limit.{metric}",
        baseline=None,
        value=value,
        limit=limit,
        verdict=verdict,
        note="absolute limit",
        interval=(low, high) if relative_halfwidth else None,
    )


def floor(model: str, metric: str, value: float, limit: float) -> CheckFinding:
    """An absolute limit from below."""
    found = budget(model, metric, -value, -limit)
    return msgspec.structs.replace(found, value=value, limit=limit, note="absolute limit, at least")


def growth(model: str, metric: str, was: int, now: int, *, share: float, floor: int = 0) -> CheckFinding:
    """A count that may grow by ``share`` of the baseline's or by ``floor``, whichever is more."""
    limit = max(was * (1.0 + share), was + floor)
    verdict: GateVerdict = "pass" if now <= limit else "fail"
    return CheckFinding(model=model, metric=metric, baseline=was, value=now, limit=limit, verdict=verdict)


def accuracy_drop(model: str, was: float, now: float, drop: float) -> CheckFinding:
    """Accuracy may fall by ``drop`` (0..1), never further."""
    verdict: GateVerdict = "pass" if now >= was - drop else "fail"
    return CheckFinding(
        model=model, metric="accuracy", baseline=was, value=now, limit=was - drop, verdict=verdict
    )


def not_judged(
    model: str,
    metric: str,
    verdict: GateVerdict,
    note: str,
    *,
    was: float | None = None,
    now: float | None = None,
) -> CheckFinding:
    """A metric that is shown with the reason why no limit was applied."""
    return CheckFinding(
        model=model, metric=metric, baseline=was, value=now, limit=None, verdict=verdict, note=note
    )


def changed_ops(model: str, was: Mapping[str, int], now: Mapping[str, int]) -> list[CheckFinding]:
    """Operators whose number changed: shown, never a reason to fail."""
    names = [name for name in sorted({*was, *now}) if was.get(name, 0) != now.get(name, 0)]
    return [
        not_judged(
            model, f"ops.{name}", "pass", "for information", was=was.get(name, 0), now=now.get(name, 0)
        )
        for name in names
    ]
