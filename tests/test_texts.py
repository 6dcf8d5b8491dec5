"""Texts: from a table and a vocabulary to token numbers, to a trained, quantized and shipped encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.datasets import infer_text
from edgenas.datasets.texts import is_text, load_texts
from edgenas.datasets.tokenizer import Tokenizer, learn_vocabulary, text_metadata, tokenizer_from_metadata
from edgenas.errors import DataError, ModelError, UsageError
from edgenas.quantization.inputs import ArrayInputs
from edgenas.quantization.samples import PreprocessingOptions, load_inputs
from edgenas.search_spaces import build_onnx, get_space

GOOD, BAD = ("a fine film", "warm and clever", "truly moving", "bright, funny!"), (
    "a dull mess", "cold and clumsy", "truly boring", "grim, tired!"
)  # fmt: skip


def write_reviews(folder: Path, repeats: int = 30) -> Path:
    """A folder of texts whose words tell the class."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)

    def rows(count: int) -> str:
        lines = ["sentence\tlabel"]
        for index in range(count):
            words = [str(word) for word in generator.choice(GOOD if index % 2 else BAD, 2)]
            lines.append(f"{' , '.join(words)} {index}\t{'good' if index % 2 else 'bad'}")
        return "\n".join(lines) + "\n"

    (folder / "train.tsv").write_text(rows(8 * repeats))
    (folder / "dev.tsv").write_text(rows(40))
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("texts") / "reviews")


# --- the tokenizer ------------------------------------------------------------------------------


def test_words_are_split_into_the_longest_known_pieces() -> None:
    tokenizer = Tokenizer(["[PAD]", "[UNK]", "film", "##ing", "##s", "f", "un", "##film", "!"])
    numbers = tokenizer.encode(["Films filming!", "unfilms", "Füf xyz film film film"], 5)
    assert numbers.tolist() == [[2, 4, 2, 3, 8], [6, 7, 4, 0, 0], [1, 1, 2, 2, 2]]


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(max_examples=50, deadline=None)
def test_any_text_becomes_numbers_of_the_vocabulary(texts: list[str]) -> None:
    tokenizer = learn_vocabulary(["some words, and more words", *texts[:2]], 64)
    numbers = tokenizer.encode(texts, 9)
    assert numbers.shape == (len(texts), 9)
    assert ((numbers >= 0) & (numbers < len(tokenizer))).all()


def test_a_learnt_vocabulary_is_the_same_again_and_says_every_word() -> None:
    texts = [*GOOD, *BAD]
    first, again = learn_vocabulary(texts, 200), learn_vocabulary(reversed(texts), 200)
    assert first.vocabulary == again.vocabulary
    assert len(first) <= 200
    assert not (first.encode(texts, 8) == 1).any()
    assert "film" in first.vocabulary


def test_the_vocabulary_travels_in_the_models_metadata() -> None:
    tokenizer = learn_vocabulary(GOOD, 100)
    found = tokenizer_from_metadata(text_metadata(tokenizer, ("bad", "good")))
    assert found is not None
    assert found.vocabulary == tokenizer.vocabulary
    assert tokenizer_from_metadata({}) is None


@pytest.mark.parametrize(
    "tokens", [[], ["a"], ["[PAD]", "a"], ["[UNK]", "[PAD]"], ["[PAD]", "[UNK]", "a", "a"]]
)
def test_what_is_no_vocabulary_is_refused(tokens: list[str]) -> None:
    with pytest.raises(DataError, match="vocabulary"):
        Tokenizer(tokens)


# --- the data -----------------------------------------------------------------------------------


def test_a_folder_of_tables_is_a_data_set(reviews: Path) -> None:
    assert is_text(reviews) and is_text(reviews / "train.tsv") and not is_text(reviews.parent)
    dataset = load_texts(reviews, vocabulary=300)
    assert dataset.class_names == ("bad", "good")
    assert (len(dataset.train), dataset.test and len(dataset.test)) == (240, 40)
    assert load_texts(reviews, vocabulary=300).sha256 == dataset.sha256
    assert load_texts(reviews, vocabulary=200).sha256 != dataset.sha256


def test_a_vocabulary_beside_the_table_is_used(tmp_path: Path) -> None:
    folder = write_reviews(tmp_path / "own", 4)
    tokens = ["[PAD]", "[UNK]", "fine", "dull"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    assert load_texts(folder, vocabulary=300).tokenizer.vocabulary == tuple(tokens)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header"),
        ("sentence\tlabel\n", "holds no texts"),
        ("a film\t1\nanother\t0\n", "no header"),
        ("sentence\tlabel\na film\t1\nbroken\n", "fewer columns"),
        ("sentence\tlabel\na film\t1\nanother\t1\n", "of one class"),
        (b"sentence\tlabel\n\xff\xfe\t1\n", "cannot be read"),
    ],
)
def test_a_damaged_table_is_one_clear_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "texts.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        load_texts(path, vocabulary=100)


# --- the model's inputs -------------------------------------------------------------------------


def text_model(path: Path, reviews: Path) -> onnx.ModelProto:
    """An encoder with random weights and the vocabulary of the reviews."""
    space = get_space("text-encoder", classes=2)
    dataset = load_texts(reviews, vocabulary=300)
    model = build_onnx(
        space.network(space.smallest()), precision=False,
        metadata=text_metadata(dataset.tokenizer, dataset.class_names),
    )  # fmt: skip
    onnx.save(model, path)
    return model


def test_texts_feed_a_model_by_its_own_vocabulary(reviews: Path, tmp_path: Path) -> None:
    model = text_model(tmp_path / "model.onnx", reviews)
    inputs = load_inputs(model, reviews, PreprocessingOptions(), part="test")
    assert isinstance(inputs, ArrayInputs)
    assert len(inputs) == 40
    assert inputs.labels is not None and set(inputs.labels.tolist()) == {0, 1}
    batch = inputs.batch([0, 1])["input_ids"]
    assert batch.dtype == np.int64 and batch.shape == (2, 24)
    bare = build_onnx(
        get_space("text-encoder").network(get_space("text-encoder").smallest()), precision=False
    )
    with pytest.raises(ModelError, match="no vocabulary"):
        load_inputs(bare, reviews, PreprocessingOptions())


def test_the_bundles_script_needs_nothing_of_the_package(reviews: Path, tmp_path: Path) -> None:
    text_model(tmp_path / "model.onnx", reviews)
    script = tmp_path / "infer.py"
    script.write_bytes(Path(infer_text.__file__).read_bytes())
    command = [sys.executable, "-I", str(script), "a fine film", "a dull mess", "--json", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    results = json.loads(done.stdout)["results"]
    assert [result["text"] for result in results] == ["a fine film", "a dull mess"]
    for result in results:
        assert {found["label"] for found in result["classes"]} == {"bad", "good"}
        assert sum(found["probability"] for found in result["classes"]) == pytest.approx(1.0)


# --- training -----------------------------------------------------------------------------------


def test_an_encoder_learns_what_words_mean_and_is_shipped_as_trained(reviews: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
    from edgenas.training import Budget, train_network
    from edgenas.training.folded import FoldedNetwork
    from edgenas.training.loading import load_source

    source = load_source(str(reviews))
    space = get_space("text-encoder", classes=2)
    examples = source.examples(space, seed=0, device=torch.device("cpu"))
    network = space.network(space.smallest())
    trained = train_network(
        network, examples, folder=tmp_path, budget=Budget(epochs=25), recipe=source.recipe
    )
    assert trained.result.validation_accuracy > 0.9
    numbers, labels = next(examples.validation_batches(1, 24))
    int8 = FoldedNetwork(network, trained.weights)(numbers)
    assert (int8.argmax(1) == labels).float().mean() > 0.85
    model = build_onnx(network, weights=trained.weights, precision=False, batch=None)
    exact = FoldedNetwork(network, trained.weights, simulate_int8=False)(numbers).numpy()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input_ids": numbers.numpy()})[0], exact, atol=1e-4)


def test_a_supernet_of_encoders_shares_its_weights(reviews: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
    from edgenas.pipeline.train import train
    from edgenas.training.loading import load_source
    from edgenas.training.scoring import subnet_accuracy
    from edgenas.training.supernets import load_supernet

    result = train(space="text-encoder", data=str(reviews), folder=tmp_path, epochs=1)
    examples = load_source(str(reviews)).examples(
        get_space("text-encoder", classes=2), seed=0, device=torch.device("cpu")
    )
    supernet = load_supernet(Path(result.checkpoint), device=torch.device("cpu"))
    assert subnet_accuracy(supernet, supernet.space.largest(), examples) == result.validation_accuracy
    numbers, _ = next(examples.validation_batches(1, 24))
    for genome in (supernet.space.smallest(), *supernet.space.sample(np.random.default_rng(0), 3)):
        described = supernet.space.describe(genome)
        floats = {name: "fp32" for name in described if name.endswith("precision")}
        supernet.set_active(supernet.space.genome_of({**described, **floats, "tokens": 24}))
        supernet.calibrate(examples.calibration_batches(1, 24))
        with torch.inference_mode():
            torch.testing.assert_close(supernet(numbers), supernet.extract()(numbers), atol=1e-4, rtol=1e-3)


def test_spaces_of_images_and_texts_do_not_mix(reviews: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
    from edgenas.pipeline.train import train

    with pytest.raises(UsageError, match="reads images"):
        train(space="mobilenetv3-demo", data=str(reviews), folder=tmp_path, epochs=1)
    with pytest.raises(UsageError, match="reads texts"):
        train(space="text-encoder", data="digits", folder=tmp_path, epochs=1)


def test_proxies_that_look_at_images_are_refused(reviews: Path, tmp_path: Path) -> None:
    from accuracy_source_contract import make_request

    from edgenas.pipeline.accuracy_sources import get_source

    request = replace(make_request(tmp_path, name="proxy"), space="text-encoder", data=None)
    with pytest.raises(UsageError, match="looks at images"):
        get_source("proxy")(replace(request, detail="synflow"))
    scoring = get_source("proxy")(request)
    ends = np.stack([scoring.space.smallest(), scoring.space.largest()])
    assert scoring.source.score(ends).tolist() == pytest.approx([0.1, 0.9])
