"""Texts to token numbers: words, and pieces of the words that are not in the vocabulary.

A vocabulary is a text file with one token a line, as BERT's ``vocab.txt``: the line's number is the
token's. ``[PAD]`` must be the first one, ``[UNK]`` must be there; a token that starts with ``##`` goes on
in the middle of a word.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgenas.datasets.infer_text import INSIDE, UNKNOWN, encode, words
from edgenas.datasets.preprocessing import LABELS_KEY
from edgenas.errors import DataError

PADDING = "[PAD]"
VOCABULARY_KEY = "edgenas.vocabulary"


class Tokenizer:
    """Greedy longest pieces of lower-cased words, as ``infer_text`` splits them on the device.

    Args:
        vocabulary: the tokens in the order of their numbers.

    Raises:
        DataError: ``[PAD]`` is not the first token, ``[UNK]`` is missing, or a token stands twice.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        self._number = {token: number for number, token in enumerate(self.vocabulary)}
        if self.vocabulary[:1] != (PADDING,) or UNKNOWN not in self._number:
            raise DataError(
                f"a vocabulary starts with {PADDING} and holds {UNKNOWN}; this one of "
                f"{len(self.vocabulary)} tokens starts with {', '.join(self.vocabulary[:3]) or 'nothing'}"
            )
        if len(self._number) != len(self.vocabulary):
            raise DataError(
                f"{len(self.vocabulary) - len(self._number)} tokens stand twice in the vocabulary"
            )

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def sha256(self) -> str:
        """Hash of all tokens."""
        return hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest()

    def encode(self, texts: Sequence[str], tokens: int) -> NDArray[np.int64]:
        """Numbers (N, tokens) of texts; longer ones are cut, shorter ones padded with 0."""
        return encode(texts, self._number, tokens)


def read_vocabulary(path: Path) -> Tokenizer:
    """The tokenizer of a vocabulary file.

    Raises:
        DataError: it cannot be read, or is no vocabulary.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the vocabulary {path} cannot be read: {error}") from error
    return Tokenizer([line for line in lines if line])


def learn_vocabulary(texts: Iterable[str], size: int) -> Tokenizer:
    """A vocabulary of at most ``size`` tokens: every character, then the most frequent words and endings.

    Simpler than WordPiece's own training, and the same for the same texts: characters (at the start and
    inside of words) make every word sayable, a quarter of the rest are the most frequent beginnings and
    endings of three to six characters, and the others are whole words.
    """
    counts = Counter(word for text in texts for word in words(text))
    characters = Counter(c for word in counts for c in (word[0], *(f"{INSIDE}{c}" for c in word[1:])))
    tokens = dict.fromkeys((PADDING, UNKNOWN, *_most_frequent(characters, size // 4)))
    parts: Counter[str] = Counter()
    for word, count in counts.items():
        for length in range(3, min(7, len(word))):
            parts[word[:length]] += count
            parts[INSIDE + word[-length:]] += count
    frequent = _most_frequent(counts, size)
    room = max(size - len(tokens), 0)
    for token in frequent[: room - room // 4] + _most_frequent(parts, size) + frequent:
        if len(tokens) < size:
            tokens.setdefault(token)
    return Tokenizer(tuple(tokens))


def _most_frequent(counts: Counter[str], most: int) -> list[str]:
    """The most frequent ones; of equally frequent ones the first in alphabetical order."""
    return sorted(counts, key=lambda token: (-counts[token], token))[:most]


def text_metadata(tokenizer: Tokenizer, class_names: Sequence[str]) -> dict[str, str]:
    """What ``metadata_props`` of an ONNX model says so that it can be used without this package."""
    return {
        VOCABULARY_KEY: msgspec.json.encode(tokenizer.vocabulary).decode(),
        LABELS_KEY: msgspec.json.encode(tuple(class_names)).decode(),
    }


def tokenizer_from_metadata(metadata: Mapping[str, str]) -> Tokenizer | None:
    """The tokenizer that EdgeNAS wrote into a model's metadata; None without.

    Raises:
        DataError: it is no vocabulary.
    """
    text = metadata.get(VOCABULARY_KEY)
    if text is None:
        return None
    try:
        return Tokenizer(msgspec.json.decode(text, type=tuple[str, ...]))
    except msgspec.DecodeError as error:
        raise DataError(f"the model's metadata '{VOCABULARY_KEY}' is not valid: {error}") from error
