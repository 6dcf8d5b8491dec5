"""What every accuracy source must hold to; a subclass says in ``request`` what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest, get_source, source_names
from edgenas.search_spaces import Genomes
from edgenas.workspace import Workspace

SMALL_SPACE = """
resolution = [12, 16]

[stem]
width = 8
precision = "fp32"

[[stage]]
operator = ["fused", "depthwise"]
width = [8, 16]
depth = [1, 2]
stride = 2
expansion = [1, 2]
precision = ["int8", "fp32"]

[head]
features = 16
"""


def write_shades(path: Path) -> Path:
    """Two classes of images, bright and dark, in the layout that ``--data`` takes."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = generator.integers(0, 130, (120, 16, 16, 3)) + 90 * labels[:, None, None, None]
    np.savez(
        path, x_train=images.astype(np.uint8), y_train=labels,
        x_test=images[:4].astype(np.uint8), y_test=labels[:4],
    )  # fmt: skip
    return path


def make_request(folder: Path, *, name: str, checkpoint: Path | None = None) -> ScoringRequest:
    """A request for the small space and the shades of ``folder``, with a folder of its own."""
    return ScoringRequest(
        space=str(folder / "small.toml"),
        data=str(folder / "shades.npz"),
        checkpoint=checkpoint,
        detail=None,
        seed=0,
        folder=folder / name,
        workspace=Workspace(folder),
    )


class AccuracySourceContract:
    """One contract for all accuracy sources."""

    source: str

    @pytest.fixture
    def request_(self) -> ScoringRequest:
        raise NotImplementedError

    @pytest.fixture
    def scoring(self, request_: ScoringRequest) -> Scoring:
        return get_source(self.source)(request_)

    @pytest.fixture
    def genomes(self, scoring: Scoring) -> Genomes:
        return np.unique(scoring.space.sample(np.random.default_rng(1), 6), axis=0)

    def test_it_is_registered_and_labels_its_scores(self, scoring: Scoring) -> None:
        assert self.source in source_names()
        assert scoring.source.name.split(":")[0] == self.source
        assert scoring.evaluations > 0

    def test_scores_are_ratios_one_a_genome(self, scoring: Scoring, genomes: Genomes) -> None:
        scores = scoring.source.score(genomes)
        assert scores.shape == (len(genomes),)
        assert scores.dtype == np.float64
        assert ((scores >= 0) & (scores <= 1)).all()
        assert scoring.source.score(genomes[:0]).shape == (0,)

    def test_a_score_is_the_same_in_any_company(self, scoring: Scoring, genomes: Genomes) -> None:
        together = scoring.source.score(genomes)
        assert np.array_equal(scoring.source.score(genomes[::-1]), together[::-1])
        assert np.array_equal(scoring.source.score(genomes[2:3]), together[2:3])

    def test_another_process_scores_the_same_under_the_same_identity(
        self, request_: ScoringRequest, scoring: Scoring, genomes: Genomes
    ) -> None:
        again = get_source(self.source)(request_)
        assert again.identity == scoring.identity
        assert np.array_equal(again.source.score(genomes), scoring.source.score(genomes))
