#!/usr/bin/env python3
"""Classifies texts with an ONNX model that EdgeNAS made: numpy and onnxruntime, nothing else.

    python infer.py "a sentence" ["another one" ...] [--model model.onnx] [--json]

Every bundle of a text model carries this file, and EdgeNAS itself imports it for training and
validation, so a text reaches the network in one way only. It therefore runs on Python 3.9 and imports
nothing of the package. The vocabulary stands in the model's metadata.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNKNOWN, INSIDE = "[UNK]", "##"
WORDS = re.compile(r"\w+|[^\w\s]")
LONGEST_WORD = 64


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks, without accents."""
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(mark for mark in plain if unicodedata.category(mark) != "Mn")
    return [word[:LONGEST_WORD] for word in WORDS.findall(plain)]


def pieces(word: str, numbers: Mapping[str, int]) -> list[int]:
    """The longest known beginning of a word, then the longest known continuation, and so on.

    Source: Devlin et al., BERT (2019), WordPiece.
    """
    found: list[int] = []
    start = 0
    while start < len(word):
        prefix = INSIDE if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in numbers), None)
        if end is None:
            return [numbers[UNKNOWN]]
        found.append(numbers[prefix + word[start:end]])
        start = end
    return found


def encode(texts: Sequence[str], numbers: Mapping[str, int], tokens: int) -> np.ndarray:
    """Token numbers int64 (N, tokens) of texts; longer ones are cut, shorter ones padded with 0."""
    rows = np.zeros((len(texts), tokens), np.int64)
    known: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        found: list[int] = []
        for word in words(text):
            if word not in known:
                known[word] = pieces(word, numbers)
            found += known[word]
            if len(found) >= tokens:
                break
        rows[row, : len(found[:tokens])] = found[:tokens]
    return rows


def classify(texts: Sequence[str], model: Path, threads: int | None = None) -> list[dict[str, Any]]:
    """The classes of every text with their probabilities, most probable first.

    Raises:
        ValueError: the model's metadata holds no vocabulary.
        OSError: the model cannot be read.
    """
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    if "edgenas.vocabulary" not in metadata:
        raise ValueError(f"the metadata of {model} hold no vocabulary: it is no text model of EdgeNAS")
    labels = json.loads(metadata.get("edgenas.labels", "[]"))
    numbers = {token: number for number, token in enumerate(json.loads(metadata["edgenas.vocabulary"]))}
    wanted = session.get_inputs()[0]
    results = []
    for text in texts:
        row = encode([text], numbers, wanted.shape[1])
        logits = np.asarray(session.run(None, {wanted.name: row})[0], np.float64)[0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        classes = [
            {
                "index": int(i),
                "label": labels[i] if i < len(labels) else str(i),
                "probability": float(shares[i]),
            }
            for i in np.argsort(-shares, kind="stable")
        ]
        results.append({"text": text, "classes": classes})
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when every text was classified, 1 with one line on stderr otherwise."""
    parser = argparse.ArgumentParser(description="Classify texts with an ONNX model made by EdgeNAS.")
    parser.add_argument("texts", nargs="+", help="each is classified on its own")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent / "model.onnx")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        results = classify(options.texts, options.model, options.threads)
    except ImportError as error:
        return _fail(f"{error}: pip install onnxruntime")
    except (OSError, ValueError, KeyError) as error:
        return _fail(str(error))
    if options.json:
        print(json.dumps({"model": str(options.model), "results": results}))  # noqa: T201
        return 0
    for result in results:
        print(result["text"])  # noqa: T201
        for found in result["classes"]:
            print(f"  {found['probability']:7.2%}  {found['label']}")  # noqa: T201
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
