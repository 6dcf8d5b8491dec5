from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")

from edgenas.datasets import ArrayImages, Dataset  # noqa: E402
from edgenas.errors import ArtifactError, DataError, EdgeNASError, UsageError  # noqa: E402
from edgenas.records import TrainResult  # noqa: E402
from edgenas.search_spaces import build_onnx  # noqa: E402
from edgenas.search_spaces.staged import (  # noqa: E402
    Classifier,
    Stage,
    StagedDescription,
    StagedSpace,
    Stem,
    with_compression,
)
from edgenas.search_spaces.torch_builder import folded_weights  # noqa: E402
from edgenas.training import (  # noqa: E402
    Augmentation,
    Budget,
    Recipe,
    Supernet,
    SupernetAccuracy,
    TrainingData,
    default_augmentation,
    load_supernet,
    prepare,
    torch_device,
    train_from_better_start,
    train_network,
    train_supernet,
)
from edgenas.training.augmentation import augment, resized  # noqa: E402
from edgenas.training.budget import Clock, StepBudget, load_step_budget, save_step_budget  # noqa: E402
from edgenas.training.checkpoint import load_checkpoint  # noqa: E402
from edgenas.training.folded import FoldedNetwork, quantized_activation, quantized_weight  # noqa: E402
from edgenas.training.networks import Teacher  # noqa: E402
from edgenas.training.scores import ScoreStore  # noqa: E402

TINY = StagedDescription(
    name="tiny",
    resolution=(8, 12),
    stem=Stem(width=(8, 16)),
    stages=(
        Stage(
            width=(8, 16),
            depth=(1, 2),
            operator=("depthwise", "fused", "basic", "bottleneck"),
            expansion=(1, 2),
            kernel=(3, 5, 7),
            se=(False, True),
            activation=("relu", "hardswish"),
        ),
        Stage(width=(16, 24), depth=(1, 2), stride=2, operator=("basic",), expansion=(0.5, 1)),
    ),
    head=Classifier(features=(0, 16), hidden=8, activation="hardswish"),
)
COMPRESSED = with_compression(
    StagedDescription(
        name="compressed",
        resolution=(8, 12),
        stem=Stem(width=(16,)),
        stages=(
            Stage(
                width=(16, 24),
                depth=(1, 2),
                operator=("depthwise", "fused", "basic", "bottleneck"),
                expansion=(1, 2),
                se=(False, True),
                stride=2,
            ),
        ),
        head=Classifier(features=(0, 32), hidden=24, rank=(0.5, 1)),
    ),
    "compressed",
    kept=(0.5, 1),
)
CPU = torch.device("cpu")
SMALL = Recipe(batch_size=16, learning_rate=0.05)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    prepare(CPU, 1)


@pytest.fixture(scope="module")
def space() -> StagedSpace:
    return StagedSpace(TINY, classes=3)


@pytest.fixture(scope="module", params=[TINY, COMPRESSED], ids=lambda description: description.name)
def either(request: pytest.FixtureRequest) -> StagedSpace:
    """A space without and one with compression among its genes."""
    return StagedSpace(request.param, classes=3)


def make_dataset(count: int = 150, seed: int = 0) -> Dataset:
    """Three classes of noisy images that differ in their brightest channel."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = generator.integers(0, 120, (count, 12, 12, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 100
    images = ArrayImages(pixels, labels.astype(np.int64), ("red", "green", "blue"))
    return Dataset("colours", images, images.subset(np.arange(9)))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData(make_dataset(), seed=0, size=(12, 12), device=CPU)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in module.state_dict().values()])


# --- the supernet -----------------------------------------------------------------------------------


def test_active_subnet_extracted_module_and_onnx_agree(either: StagedSpace, data: TrainingData) -> None:
    supernet = Supernet(either, seed=3)
    generator = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            noise = generator.normal(scale=0.05, size=tuple(parameter.shape)).astype(np.float32)
            parameter.add_(torch.from_numpy(noise))
    float_only = {c.name: "fp32" for c in either.choices if c.name.endswith("precision")}
    genomes = [either.smallest(), either.largest(), *either.sample(generator, 40)]
    for genome in genomes:
        supernet.eval()
        supernet.set_active(either.genome_of({**either.describe(genome), **float_only}))
        _, height, width = supernet.network.input_shape
        supernet.calibrate(data.calibration_batches(height, width))
        inputs, _ = next(data.validation_batches(height, width))
        active = supernet(inputs).numpy()
        module = supernet.extract()
        with torch.inference_mode():
            extracted = module(inputs).numpy()
        model = build_onnx(supernet.network, weights=folded_weights(module, supernet.network), batch=None)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        shipped = session.run(None, {"input": inputs.contiguous().numpy()})[0]
        scale = np.abs(extracted).max()
        np.testing.assert_allclose(active, extracted, atol=2e-4 * scale, rtol=1e-3)
        np.testing.assert_allclose(shipped, extracted, atol=2e-4 * scale, rtol=1e-3)


def test_training_mode_is_the_module_with_batch_statistics(either: StagedSpace, data: TrainingData) -> None:
    supernet = Supernet(either)
    for genome in either.sample(np.random.default_rng(2), 10):
        supernet.eval()
        supernet.set_active(genome)
        _, height, width = supernet.network.input_shape
        supernet.calibrate(data.calibration_batches(height, width))
        module = supernet.extract().train()
        inputs, _ = next(data.validation_batches(height, width))
        with torch.no_grad():
            torch.testing.assert_close(supernet.train()(inputs), module(inputs), atol=1e-4, rtol=1e-3)


def test_every_weight_is_reached_by_some_network(either: StagedSpace, data: TrainingData) -> None:
    supernet = Supernet(either).train()
    genomes = either.sample(np.random.default_rng(0), 200)
    for genome in [either.smallest(), either.largest(), *genomes]:
        supernet.set_active(genome)
        _, height, width = supernet.network.input_shape
        supernet(torch.rand(2, 3, height, width)).logsumexp(1).sum().backward()
    missed = [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in missed if not name.endswith("bias")]


def test_evaluating_without_calibration_is_refused(space: StagedSpace) -> None:
    supernet = Supernet(space).eval()
    with pytest.raises(AssertionError, match="calibrate"):
        supernet(torch.zeros(1, 3, 12, 12))


# --- int8 simulation --------------------------------------------------------------------------------


def test_quantized_values_are_on_an_8_bit_grid_close_to_the_original() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    for quantize, levels in ((quantized_weight, 255), (quantized_activation, 256)):
        result = quantize(values)
        assert len(result.unique()) <= levels
        step = (values.max() - values.min()) / 200
        assert (result - values).abs().max() <= step
    assert (quantized_activation(values.relu()) == 0).sum() >= (values <= 0).sum()


def test_int8_layers_change_the_outputs_a_little(space: StagedSpace, data: TrainingData) -> None:
    supernet = Supernet(space)
    int8 = {c.name: "int8" for c in space.choices if c.name.endswith("precision")}
    supernet.set_active(space.genome_of({**space.describe(space.largest()), **int8}))
    supernet.calibrate(data.calibration_batches(12, 12))
    weights = folded_weights(supernet.extract(), supernet.network)
    inputs, _ = next(data.validation_batches(12, 12))
    exact, simulated = (
        FoldedNetwork(supernet.network, weights, simulate_int8=on)(inputs) for on in (False, True)
    )
    distance = float((exact - simulated).norm() / exact.norm())
    assert 1e-4 < distance < 0.5


# --- data -------------------------------------------------------------------------------------------


def test_validation_is_disjoint_from_training_and_never_from_the_test_split() -> None:
    count = 60
    pixels = np.zeros((count, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    labels = (np.arange(count) % 3).astype(np.int64)
    train = ArrayImages(pixels[:45], labels[:45], ("a0", "b0", "c0"))
    test = ArrayImages(pixels[45:], labels[45:], ("a0", "b0", "c0"))
    data = TrainingData(Dataset("numbered", train, test), seed=5, size=(4, 4), device=CPU)
    trained, chosen = (set(part.array(4, 4)[:, 0, 0, 0].tolist()) for part in (data.train, data.validation))
    assert not trained & chosen
    assert trained | chosen == set(range(45))
    assert len(chosen) == 9


def test_plain_images_cannot_be_trained_on() -> None:
    images = ArrayImages(np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="no labels"):
        TrainingData(Dataset("plain", images, None), seed=0, size=(4, 4), device=CPU)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(cutout_share=0.5), Augmentation(flip=False)]
)
def test_augmentation_repeats_and_keeps_type_and_shape(augmentation: Augmentation) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 16, 12), np.uint8))
    blank = torch.tensor([1, 2, 3], dtype=torch.uint8)
    first, again, other = (
        augment(images, augmentation, blank, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_augmentation_images_stay_what_they_are() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    nothing = Augmentation(crop_share=0.0, flip=False)
    assert torch.equal(augment(images, nothing, images[0, :, 0, 0], np.random.default_rng(0)), images)


def test_digits_are_not_mirrored_and_photographs_are() -> None:
    assert not default_augmentation([str(digit) for digit in range(10)]).flip
    assert default_augmentation(["cat", "dog"]).flip


def test_resizing_on_tensors_is_the_shipped_resizing() -> None:
    images = ArrayImages(np.random.default_rng(0).integers(90, 160, (4, 32, 32, 3), np.uint8))
    tensor = torch.from_numpy(images.array(32, 32)).permute(0, 3, 1, 2)
    for size in (24, 40):
        shipped = images.array(size, size).astype(int)
        trained = resized(tensor, size, size).permute(0, 2, 3, 1).numpy().astype(int)
        assert np.abs(shipped - trained).max() <= 1  # values that clip in Pillow's first pass differ more


def test_mixup_blends_targets() -> None:
    blended = TrainingData(
        make_dataset(), seed=0, size=(12, 12), device=CPU, augmentation=Augmentation(mixup_alpha=1.0)
    )
    batch = next(blended.batches(16, 0.0, np.random.default_rng(0)))
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(16))
    assert ((batch.targets > 0).sum(1) > 1).any()


# --- budgets and schedules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{}, {"epochs": 1, "cpu_seconds": 1.0}, {"epochs": 0}, {"cpu_seconds": -1.0}]
)
def test_a_budget_is_one_positive_number(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Budget(**wrong)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    recipe = Recipe()
    rates = [recipe.learning_rate_at(fraction) for fraction in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert rates[0] < 0.05 * max(rates)
    assert rates[-1] == 0.0
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_pauses_do_not_count() -> None:
    clock = Clock(3.0)
    sum(range(200_000))
    assert clock.cpu_seconds == 3.0
    with clock.running():
        sum(range(200_000))
    spent = clock.cpu_seconds
    assert spent > 3.0
    sum(range(200_000))
    assert clock.cpu_seconds == spent


def test_cpu_seconds_become_steps_once_and_a_killed_training_keeps_them(
    space: StagedSpace, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first epoch and after it, a training ends as one that was never stopped.

    The whole one prices its steps, the other one is given them: trial steps leave no trace.
    """

    def train(folder: Path) -> Supernet:
        return train_supernet(space, data, folder=folder, budget=Budget(cpu_seconds=2.0), recipe=SMALL)[0]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = train(whole)
    state = load_checkpoint(whole / "supernet.pt")
    assert state["step"] == state["steps"] > data.steps(SMALL.batch_size)
    killed.mkdir()
    (killed / "supernet.steps.json").write_bytes((whole / "supernet.steps.json").read_bytes())

    batches = TrainingData.batches
    for epochs in (0, 1):

        def stopped(self: TrainingData, *arguments: object, after: int = epochs) -> object:
            if (killed / "supernet.pt").exists() == bool(after):
                raise KeyboardInterrupt
            return batches(self, *arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TrainingData, "batches", stopped)
            train(killed)
    assert load_checkpoint(killed / "supernet.pt")["step"] == data.steps(SMALL.batch_size)
    assert torch.equal(flat(expected), flat(train(killed)))


def test_a_step_budget_of_another_training_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "supernet.steps.json"
    kept = StepBudget(identity="mine", steps=7, step_cpu_seconds=0.5, cpu_seconds=1.0)
    assert load_step_budget(path, "mine") is None
    save_step_budget(path, kept)
    assert load_step_budget(path, "mine") == kept
    assert load_step_budget(path, "another's") is None
    path.write_text(path.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(ArtifactError, match="version 99"):
        load_step_budget(path, "mine")


# --- training ---------------------------------------------------------------------------------------


def test_supernet_learns_and_a_killed_training_ends_with_the_same_weights(
    space: StagedSpace, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"budget": Budget(epochs=3), "seed": 1, "recipe": SMALL}
    whole, result = train_supernet(space, data, folder=tmp_path / "whole", **options)
    assert [record.epoch for record in result.epochs] == [1, 2, 3]
    assert result.validation_accuracy > 0.6
    assert set(result.epochs[-1].accuracy) == {"smallest", "largest"}

    batches = TrainingData.batches

    def killed(self: TrainingData, *arguments: object) -> object:
        for number, batch in enumerate(batches(self, *arguments)):
            if number == 3 and (tmp_path / "killed" / "supernet.pt").exists():
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingData, "batches", killed)
        train_supernet(space, data, folder=tmp_path / "killed", **options)
    resumed, again = train_supernet(space, data, folder=tmp_path / "killed", **options)
    assert torch.equal(flat(whole), flat(resumed))
    assert [r.accuracy for r in again.epochs] == [r.accuracy for r in result.epochs]


def test_a_pool_alone_is_trained(space: StagedSpace, data: TrainingData, tmp_path: Path) -> None:
    narrow = {"stem.width": 8, "s1.width": 8, "s1.operator": "basic", "resolution": 8}
    pool = np.stack([space.genome_of(narrow | {"s2.width": width}) for width in (16, 24)])
    options = {"recipe": SMALL, "pool": pool, "seed": 1}
    trained, result = train_supernet(space, data, folder=tmp_path, budget=Budget(epochs=2), **options)
    weight, first = (one.shared["s1b0-BasicBlock-conv1"].weight for one in (trained, Supernet(space, seed=1)))
    ratio = weight / first
    assert ratio[8:].std() < 1e-4, "no network of the pool is so wide: its weights only decay"
    assert ratio[:8, :8].std() > 1e-2
    assert set(result.epochs[-1].accuracy) == {"middle"}
    again, _ = train_supernet(space, data, folder=tmp_path, budget=Budget(epochs=2), **options)
    assert torch.equal(flat(trained), flat(again))


def test_a_finished_training_is_loaded_and_other_settings_start_anew(
    space: StagedSpace, data: TrainingData, tmp_path: Path
) -> None:
    def train(epochs: int) -> tuple[Supernet, object]:
        return train_supernet(space, data, folder=tmp_path, budget=Budget(epochs=epochs), recipe=SMALL)

    first, result = train(1)
    second, same = train(1)
    assert result == same
    assert torch.equal(flat(first), flat(second))
    assert not torch.equal(flat(first), flat(train(2)[0]))


def test_network_training_distils_starts_from_the_supernet_and_resumes(
    space: StagedSpace, data: TrainingData, tmp_path: Path
) -> None:
    supernet = Supernet(space)
    supernet.set_active(space.largest())
    supernet.calibrate(data.calibration_batches(12, 12))
    teacher = Teacher(supernet.eval(), 12, 12, accuracy=1.0, fingerprint="largest")
    network, state = supernet.network, supernet.subnet_state()

    def train(name: str, epochs: int = 2, **options: object) -> torch.Tensor:
        trained = train_network(
            network, data, folder=tmp_path / name, budget=Budget(epochs=epochs), recipe=SMALL, **options
        )
        return flat(trained.module)

    alone = train("alone", state=state)
    taught = train("taught", state=state, teacher=teacher)
    overtaken = train("overtaken", state=state, teacher=replace(teacher, accuracy=0.01))
    scratch = train("scratch")
    assert torch.equal(alone, train("alone", state=state))
    assert not torch.equal(alone, taught)
    assert not torch.equal(alone, overtaken)  # in the first epoch there is nothing to compare with
    assert not torch.equal(taught, overtaken)
    assert not torch.equal(alone, scratch)


def test_the_better_start_goes_on_and_the_other_one_is_paid_for(
    space: StagedSpace, data: TrainingData, tmp_path: Path
) -> None:
    network = space.network(space.genome_of({"resolution": 8}))
    taught = train_network(
        network, data, folder=tmp_path / "taught", budget=Budget(epochs=3), recipe=SMALL
    ).module.state_dict()
    dead = {name: torch.zeros_like(tensor) for name, tensor in taught.items()}

    def train(name: str, inherited: dict[str, torch.Tensor], epochs: int) -> TrainResult:
        return train_from_better_start(
            network,
            data,
            inherited=inherited,
            folder=tmp_path / name,
            budget=Budget(epochs=epochs),
            recipe=SMALL,
        ).result

    led = train("led", taught, 5)
    assert (Path(led.checkpoint), len(led.epochs)) == (tmp_path / "led" / "network.pt", 4)
    lost = train("lost", dead, 5)
    assert (Path(lost.checkpoint), len(lost.epochs)) == (tmp_path / "lost" / "scratch" / "network.pt", 4)
    assert train("lost", dead, 5) == lost
    assert len(train("short", dead, 3).epochs) == 3, "too short for a contest"


def test_trained_weights_build_the_shipped_model(
    space: StagedSpace, data: TrainingData, tmp_path: Path
) -> None:
    network = space.network(space.genome_of({"resolution": 12}))
    trained = train_network(network, data, folder=tmp_path, budget=Budget(epochs=3), recipe=SMALL)
    assert trained.result.validation_accuracy > 0.6
    model = build_onnx(network, weights=trained.weights, batch=None, precision=False)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    right = 0
    for inputs, labels in data.validation_batches(12, 12):
        logits = session.run(None, {"input": inputs.contiguous().numpy()})[0]
        right += int((logits.argmax(1) == labels.numpy()).sum())
    assert right / len(data.validation) == pytest.approx(trained.result.validation_accuracy, abs=0.04)


def test_diverging_says_so(space: StagedSpace, data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(EdgeNASError, match="diverged"):
        train_network(
            space.network(space.smallest()),
            data,
            folder=tmp_path,
            budget=Budget(epochs=2),
            recipe=Recipe(batch_size=16, learning_rate=float("inf")),
        )


# --- checkpoints and scores -------------------------------------------------------------------------


def test_a_supernet_comes_back_from_its_checkpoint(
    space: StagedSpace, data: TrainingData, tmp_path: Path
) -> None:
    trained, result = train_supernet(space, data, folder=tmp_path, budget=Budget(epochs=1), recipe=SMALL)
    path = Path(result.checkpoint)
    assert torch.equal(flat(trained), flat(load_supernet(path, device=CPU, space=space)))
    other = StagedSpace(TINY, classes=4)
    with pytest.raises(ArtifactError, match="not the one"):
        load_supernet(path, device=CPU, space=other)


def test_damaged_checkpoints_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "supernet.pt"
    with pytest.raises(ArtifactError, match="no checkpoint"):
        load_supernet(path, device=CPU)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        load_supernet(path, device=CPU)
    torch.save({"version": 999}, path)
    with pytest.raises(ArtifactError, match="version 999"):
        load_supernet(path, device=CPU)


def test_scores_are_repeatable_cached_and_survive_a_cut_line(
    space: StagedSpace, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernet = Supernet(space, seed=1)
    genomes = space.sample(np.random.default_rng(0), 4)
    cache = tmp_path / "scores.jsonl"
    scores = SupernetAccuracy(supernet, data, cache=cache).score(genomes)
    assert scores.shape == (4,)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(
        scores, SupernetAccuracy(supernet, data, cache=tmp_path / "b.jsonl").score(genomes)
    )

    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("".join(lines[:3]) + lines[3][:10])
    resumed = SupernetAccuracy(supernet, data, cache=cache)
    np.testing.assert_array_equal(resumed.score(genomes), scores)
    assert [json.loads(line) for line in cache.read_text().splitlines()] == [json.loads(x) for x in lines]

    monkeypatch.setattr(Supernet, "calibrate", None)
    np.testing.assert_array_equal(SupernetAccuracy(supernet, data, cache=cache).score(genomes), scores)


CRAMPED = """
import resource, sys
from pathlib import Path
from edgenas.training.scores import ScoreStore
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
print(len(ScoreStore(Path(sys.argv[1]), "source").known))
"""


def test_a_cut_line_is_taken_off_without_writing_the_others_again(tmp_path: Path) -> None:
    """A process that may not write must not lose what is there, nor may one that is killed."""
    path = tmp_path / "scores.jsonl"
    store = ScoreStore(path, "source")
    for number in range(3):
        store.add(f"network {number}", np.array([number]), 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"version": 1, "sour')
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, str(path)], capture_output=True, text=True, check=True
    )
    assert path.read_bytes() == whole
    assert done.stdout == "3\n"


def test_scores_of_other_weights_are_not_used(space: StagedSpace, data: TrainingData, tmp_path: Path) -> None:
    genomes = space.sample(np.random.default_rng(0), 2)
    cache = tmp_path / "scores.jsonl"
    for seed in (0, 1):
        SupernetAccuracy(Supernet(space, seed=seed), data, cache=cache).score(genomes)
    assert len(cache.read_text().splitlines()) == 4


def test_damaged_scores_are_one_clear_error(space: StagedSpace, data: TrainingData, tmp_path: Path) -> None:
    cache = tmp_path / "scores.jsonl"
    cache.write_text("nonsense\n")
    with pytest.raises(ArtifactError, match="damaged"):
        SupernetAccuracy(Supernet(space), data, cache=cache)


def test_devices_are_checked() -> None:
    assert torch_device("cpu") == CPU
    assert torch_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UsageError, match="known: auto, cpu, cuda"):
        torch_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees none"):
            torch_device("cuda")
