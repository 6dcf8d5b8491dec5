"""What a profile found: how well the table predicts, space by space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from edgenas.latency_tables.evaluation import error_of, held_out_error, noise_floor
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import PlannedNetwork, SpaceNetwork
from edgenas.pipeline.transferred_space import transferred_space
from edgenas.records import ProfileCell, ProfileResult
from edgenas.search_spaces import SearchSpace


def profile_result(
    measuring: Measuring,
    plan: Sequence[PlannedNetwork],
    neighbours: Neighbours,
    *,
    elapsed_s: float,
) -> ProfileResult:
    """What was measured of a plan, and what the table that it went to is worth now."""
    table, agent = measuring.table, measuring.agent
    observations = observe(table, threads=measuring.threads, fingerprint=measuring.fingerprint)
    predictor = fitted(table, threads=measuring.threads, fingerprint=measuring.fingerprint)
    cells = list(dict.fromkeys(network.cell for network in plan))
    spaces = {network.space: network.origin for network in plan if isinstance(network, SpaceNetwork)}
    planned = {network.cell for network in plan}
    shown = [one for one in observations.networks if (one.network.space, one.network.precision) in planned]
    return ProfileResult(
        device=table.device,
        table=str(table.path),
        environment=agent.environment,
        threads=measuring.threads,
        measured_networks=measuring.measured,
        reused_networks=measuring.reused,
        failed_networks=measuring.failed(plan),
        device_seconds=measuring.device_seconds,
        elapsed_s=elapsed_s,
        noise_floor=noise_floor(shown),
        cells=tuple(
            _helped(_cell(space, precision, observations, predictor), spaces, observations, neighbours)
            for space, precision in cells
        ),
    )


def _cell(space: str, precision: str, observations: Observations, predictor: LatencyPredictor) -> ProfileCell:
    networks = [
        one
        for one in observations.networks
        if one.network.space == space and one.network.precision == precision
    ]
    held_out = [one for one in networks if one.network.role == "held-out"]
    return ProfileCell(
        space=space,
        precision=precision,
        threads=observations.threads,
        networks=len(networks),
        kernels=len({key for network in networks for key in network.kernels}),
        coverage=_coverage(held_out or networks, predictor),
        error=held_out_error(predictor, held_out),
    )


def _helped(
    cell: ProfileCell,
    spaces: Mapping[str, SearchSpace],
    observations: Observations,
    neighbours: Neighbours,
) -> ProfileCell:
    """The cell as other tables make it where few of its networks were measured."""
    space = spaces.get(cell.space)
    if space is None:
        return cell
    found = transferred_space(space, observations, neighbours, cell.precision)
    if found is None or not found.transfer.used:
        return replace(cell, transfer=found.transfer if found is not None else None)
    held_out = [
        one
        for one in observations.with_role("held-out")
        if (one.network.space, one.network.precision) == (cell.space, cell.precision)
    ]
    if not held_out:
        return replace(cell, transfer=found.transfer, error=None)
    genomes = np.array([one.network.genome for one in held_out])
    error = error_of(held_out, found.latency_ms(genomes), found.interval_ms(genomes))
    return replace(cell, transfer=found.transfer, error=error)


def _coverage(networks: Sequence[MeasuredNetwork], predictor: LatencyPredictor) -> float:
    """Share of the networks' predicted time that comes from measured kernels."""
    shares = [estimate.interpolated_share for _, estimate in predictor.estimates(networks)]
    return 1.0 - float(np.mean(shares)) if shares else 0.0
