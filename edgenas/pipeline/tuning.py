"""Architecture and hyper-parameters of its training in one Optuna study, with pruning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgenas.errors import UsageError
from edgenas.progress import track
from edgenas.search.history import History
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.variation import Variation

if TYPE_CHECKING:
    from edgenas.training.from_scratch import Training, TrainingAccuracy

STUDY = "study.db"
_GENE = "gene:"
_RANDOM_TRIALS = 12
_FIELDS = ("learning_rate", "weight_decay", "batch_size", "label_smoothing")
_AUGMENTATIONS = ("crop_share", "cutout_share", "mixup_alpha")


class TuningLoop:
    """A search that trains every candidate with hyper-parameters of its own.

    Optuna proposes genes and hyper-parameters together (TPE) and stops trainings that fall behind
    (asynchronous successive halving). Genomes outside the limits are repaired and told as what they
    became. The study stands in ``study.db`` of the folder: a killed search goes on in the epoch in
    which it was killed, and proposes what it would have proposed.

    Args:
        problem: with accuracy as its only objective.
        source: knows how to train a network of the space.
        evaluations: trials.
        folder: of the study and of the trainings that are not finished.
        seed: of the proposals.
        identity: what the outcome depends on besides the seed; another one is another study.

    Source: Akiba et al., Optuna (2019); Li et al., A system for massively parallel hyperparameter
    tuning (2020), for the pruning.
    """

    def __init__(
        self,
        problem: Problem,
        source: TrainingAccuracy,
        *,
        evaluations: int,
        folder: Path,
        seed: int,
        identity: str,
    ) -> None:
        self._optuna = _optuna()
        self._problem, self._source, self._space = problem, source, source.space
        self._evaluations, self._folder, self._seed = evaluations, folder, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._distributions = self._all_distributions()
        self._study = self._optuna.create_study(
            study_name=f"{identity} {seed}",
            storage=f"sqlite:///{folder / STUDY}",
            direction="maximize",
            load_if_exists=True,
            pruner=self._optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        )
        self._take_in()

    @property
    def history(self) -> History:
        """Every finished trial in order; a genome can stand in several."""
        return self._history

    @property
    def scores(self) -> Floats:
        """Accuracy (N,) that each trial reached, also where it was stopped early."""
        return -self._history.objectives[:, 0]

    def hyperparameters(self, row: int) -> dict[str, float]:
        """What the trial in that row of the history was trained with."""
        return self._hyperparameters[row]

    def run(self, after_generation: Callable[[], object]) -> None:
        """Trains until all trials are made; interrupted, it keeps what was reported."""
        with track("Training candidates", total=self._evaluations) as task:
            task.advance(len(self._history))
            while len(self._history) < self._evaluations:
                self._train(self._running() or self._asked())
                self._take_in()
                task.advance(note=f"best {self.scores.max():.1%}")
                after_generation()

    def _all_distributions(self) -> dict[str, Any]:
        kinds = self._optuna.distributions
        genes = {
            f"{_GENE}{choice.name}": kinds.CategoricalDistribution(tuple(range(len(choice.options))))
            for choice in self._space.choices
        }
        rate, decay = self._source.recipe.learning_rate, self._source.recipe.weight_decay
        training = {
            "learning_rate": kinds.FloatDistribution(rate / 10, rate * 4, log=True),
            "weight_decay": kinds.FloatDistribution(decay / 50, decay * 10, log=True),
            "batch_size": kinds.CategoricalDistribution((32, 64, 128)),
            "label_smoothing": kinds.FloatDistribution(0.0, 0.2),
        }
        if self._source.augmentation is None:
            return genes | training
        return (
            genes
            | training
            | {
                "crop_share": kinds.FloatDistribution(0.0, 0.2),
                "cutout_share": kinds.FloatDistribution(0.0, 0.5),
                "mixup_alpha": kinds.FloatDistribution(0.0, 0.4),
            }
        )

    def _running(self) -> Any:
        """The trial that a kill interrupted, if any."""
        running = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,))
        return self._optuna.Trial(self._study, running[0]._trial_id) if running else None

    def _asked(self) -> Any:
        """A new trial within the limits."""
        seed = np.random.SeedSequence([self._seed, len(self._history)]).generate_state(2)
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=_RANDOM_TRIALS, seed=int(seed[0])
        )
        trial = self._study.ask(self._distributions)
        genome = self._genome(trial.params)[None]
        if (self._problem.violations(genome) <= 0).all():
            return trial
        variation = Variation(self._problem, np.random.default_rng(seed))
        repaired = np.concatenate([variation.repair(genome, rounds=300), variation.sample(8)])[0]
        genes = {name: int(gene) for name, gene in zip(self._gene_names(), repaired, strict=True)}
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._study.enqueue_trial(trial.params | genes)
        return self._study.ask(self._distributions)

    def _train(self, trial: Any) -> None:
        """Trains epoch by epoch until the end, or until the trial is not worth going on with."""
        from edgenas.training.from_scratch import trained_accuracy

        reached = dict(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        training = self._training(trial)
        for epoch in range(1, self._source.epochs + 1):
            if epoch not in reached:
                reached[epoch] = trained_accuracy(msgspec.structs.replace(training, until_epoch=epoch))
                trial.report(reached[epoch], epoch)
            if epoch < self._source.epochs and trial.should_prune():
                self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
                break
        else:
            self._study.tell(trial, reached[self._source.epochs])
        shutil.rmtree(training.folder, ignore_errors=True)

    def _training(self, trial: Any) -> Training:
        """The trial's training: the source's own with the trial's hyper-parameters."""
        usual = self._source.training(
            self._space.network(self._genome(trial.params)), self._folder / f"trial-{trial.number}"
        )
        recipe = msgspec.structs.replace(usual.recipe, **{name: trial.params[name] for name in _FIELDS})
        augmentation = self._source.augmentation
        if augmentation is not None:
            augmentation = msgspec.structs.replace(
                augmentation, **{name: trial.params[name] for name in _AUGMENTATIONS}
            )
        return msgspec.structs.replace(usual, recipe=recipe, augmentation=augmentation)

    def _take_in(self) -> None:
        """The finished trials as rows of a history."""
        states = self._optuna.trial.TrialState
        trials = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        self._history = History(len(self._space.choices), 1)
        self._hyperparameters = [
            {name: float(value) for name, value in trial.params.items() if not name.startswith(_GENE)}
            for trial in trials
        ]
        if trials:
            genomes = np.array([self._genome(trial.params) for trial in trials])
            reached = [trial.intermediate_values[max(trial.intermediate_values)] for trial in trials]
            self._history.add(genomes, -np.array(reached)[:, None], self._problem.violations(genomes))

    def _gene_names(self) -> list[str]:
        return [f"{_GENE}{choice.name}" for choice in self._space.choices]

    def _genome(self, params: dict[str, Any]) -> Genomes:
        return self._space.canonical(np.array([params[name] for name in self._gene_names()], np.int64))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError("--hyperparameters needs Optuna", hint="pip install 'edgenas[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
