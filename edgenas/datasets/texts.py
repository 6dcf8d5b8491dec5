"""Sets of labelled texts, read from tab-separated files."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.tokenizer import Tokenizer, learn_vocabulary, read_vocabulary
from edgenas.errors import DataError

VOCABULARY_FILE = "vocab.txt"
_TEXT_COLUMNS = ("sentence", "text")
_LABEL_COLUMNS = ("label", "class")
_TEST_NAMES = ("test", "dev", "validation")


@dataclass(frozen=True)
class Texts:
    """Texts with the indices of their classes, (N,)."""

    texts: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Texts:
        """The texts at ``indices`` in that order."""
        return Texts(tuple(self.texts[index] for index in indices), self.labels[np.asarray(indices)])


@dataclass(frozen=True)
class TextDataset:
    """Texts to learn from and to test with, and how they become numbers.

    Attributes:
        test: None where there is no other file of labelled texts.
        tokenizer: of a ``vocab.txt`` beside the file, or learnt from the training texts.
        given_sha256: of the data set that these parts were made of.
    """

    name: str
    train: Texts
    test: Texts | None
    class_names: tuple[str, ...]
    tokenizer: Tokenizer
    given_sha256: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash of the texts as they were given, their labels and the vocabulary."""
        if self.given_sha256 is not None:
            return self.given_sha256
        digest = hashlib.sha256(repr((self.class_names, self.tokenizer.sha256)).encode())
        for part in (self.train, self.test):
            if part is not None:
                digest.update("\0".join(part.texts).encode() + part.labels.tobytes())
        return digest.hexdigest()


def is_text(spec: str | Path) -> bool:
    """Whether ``--data`` names texts: a ``.tsv`` file, or a folder with ``train.tsv``."""
    path = Path(spec)
    return path.suffix == ".tsv" or (path.is_dir() and (path / "train.tsv").is_file())


def load_texts(
    spec: str | Path,
    *,
    vocabulary: int = 0,
    tokenizer: Tokenizer | None = None,
    class_names: Sequence[str] = (),
) -> TextDataset:
    """The labelled texts that ``spec`` names.

    Args:
        spec: a ``.tsv`` file with a header that names a ``sentence`` (or ``text``) and a ``label`` (or
            ``class``) column, or a folder with ``train.tsv`` and, to test with, ``test.tsv`` or
            ``dev.tsv`` with labels. A ``vocab.txt`` beside it is the tokenizer's vocabulary.
        vocabulary: the most tokens of a vocabulary that is learnt.
        tokenizer: a model's own, in the place of one that is read or learnt.
        class_names: a model's own, in the place of those in the file.

    Raises:
        DataError: a file is missing, damaged, has no labels, or a class that the model does not know.
    """
    path = Path(spec)
    file = path / "train.tsv" if path.is_dir() else path
    rows = _read(file)
    names = tuple(class_names) or tuple(sorted({label for _, label in rows}))
    if len(names) < 2:
        raise DataError(f"all texts of {file} are of one class: {', '.join(names) or 'none'}")
    train = _texts(rows, names, file)
    other = next(_labelled_beside(file), None) if file.stem == "train" else None
    test = None if other is None else _texts(_read(other), names, other)
    name = (path if path.is_dir() else path.with_suffix("")).name
    return TextDataset(name, train, test, names, tokenizer or _tokenizer(file, train, vocabulary))


def _tokenizer(file: Path, train: Texts, vocabulary: int) -> Tokenizer:
    listed = file.with_name(VOCABULARY_FILE)
    return read_vocabulary(listed) if listed.is_file() else learn_vocabulary(train.texts, vocabulary)


def _labelled_beside(file: Path) -> Iterator[Path]:
    """The files to test with beside ``file`` whose texts have labels."""
    others = (file.with_name(f"{name}.tsv") for name in _TEST_NAMES)
    return (other for other in others if other.is_file() and _columns(other)[1] is not None)


def _texts(rows: list[tuple[str, str]], names: tuple[str, ...], path: Path) -> Texts:
    number = {name: index for index, name in enumerate(names)}
    strange = sorted({label for _, label in rows} - set(names))
    if strange:
        raise DataError(f"{path} has the class {strange[0]!r}; known: {', '.join(names)}")
    return Texts(tuple(text for text, _ in rows), np.array([number[label] for _, label in rows], np.int64))


def _columns(path: Path) -> tuple[int | None, int | None]:
    """Where the text and the label stand, by the header; None: nowhere."""
    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), [])
    places = [
        [header.index(name) for name in known if name in header] for known in (_TEXT_COLUMNS, _LABEL_COLUMNS)
    ]
    return places[0][0] if places[0] else None, places[1][0] if places[1] else None


def _read(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of a file, in order."""
    try:
        text, label = _columns(path)
        if text is None or label is None:
            raise DataError(
                f"{path} has no header with a column of texts and one of labels",
                hint="the first line must name them: sentence<TAB>label",
            )
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(lines)
            rows = [(line[text].strip(), line[label].strip()) for line in lines if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except IndexError as error:
        raise DataError(f"{path} has lines with fewer columns than its header") from error
    if not rows:
        raise DataError(f"{path} holds no texts")
    return rows
