#!/usr/bin/env python3
"""Classifies images with an ONNX model that EdgeNAS made: numpy and onnxruntime, nothing else.

    python infer.py picture.png [more.jpg ...] [--model model.onnx] [--top 5] [--json]

Every bundle carries this file, and EdgeNAS itself imports it for training, calibration and
validation, so an image reaches the network in one way only. It therefore runs on Python 3.9 and
imports nothing of the package. PNG, PPM/PGM and NPY are read here; other formats need Pillow.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_IMAGES = 128  # bounds the float copies of a large batch
SAMPLES_OF_COLOR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ARRAY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}

# --- from pixels to the network's input ------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def resize_weights(size: int, target: int) -> np.ndarray:
    """The bicubic, antialiased resampling of one axis as a matrix, float32 ``(target, size)``.

    Source: Keys' cubic with a = -0.5, widened by the shrink factor, as in Pillow's Resample.c.
    """
    scale = size / target
    widening = max(scale, 1.0)
    center = (np.arange(target)[:, None] + 0.5) * scale
    pixel = np.arange(size)[None, :]
    first = np.floor(np.maximum(center - 2.0 * widening + 0.5, 0.0))
    last = np.floor(np.minimum(center + 2.0 * widening + 0.5, size))
    x = np.abs((pixel - center + 0.5) / widening)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    weights = np.where((pixel >= first) & (pixel < last), weights, 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images uint8 ``(N, H, W, C)`` as uint8 ``(N, height, width, C)``, both axes one after the other."""
    count, old_height, old_width, channels = images.shape
    if old_width != width:
        columns = images.transpose(0, 2, 1, 3).reshape(count, old_width, -1).astype(np.float32)
        mixed = resize_weights(old_width, width) @ columns
        images = _to_bytes(mixed).reshape(count, width, old_height, channels).transpose(0, 2, 1, 3)
    if old_height != height:
        rows = images.reshape(count, old_height, -1).astype(np.float32)
        images = _to_bytes(resize_weights(old_height, height) @ rows).reshape(count, height, width, channels)
    return np.ascontiguousarray(images)


def center_crop(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centred part of ``(N, H, W, C)`` that has the aspect ratio ``height : width``."""
    old_height, old_width = images.shape[1:3]
    kept_height = max(1, min(old_height, round(old_width * height / width)))
    kept_width = max(1, min(old_width, round(old_height * width / height)))
    top, left = (old_height - kept_height) // 2, (old_width - kept_width) // 2
    return images[:, top : top + kept_height, left : left + kept_width]


def fit(images: np.ndarray, height: int, width: int, how: str) -> np.ndarray:
    """Images ``(N, H, W, C)`` at the given size: squashed, or cropped to its aspect ratio first."""
    return resize(center_crop(images, height, width) if how == "crop" else images, height, width)


def arrange_channels(images: np.ndarray, channels: str) -> np.ndarray:
    """RGB uint8 ``(..., 3)`` as ``rgb``, ``bgr`` or one ``gray`` channel (ITU-R 601, as Pillow rounds it)."""
    if channels == "bgr":
        return images[..., ::-1]
    if channels == "gray":
        luma = images.astype(np.int64) @ np.array([19595, 38470, 7471])
        return np.asarray((luma + 0x8000) >> 16, dtype=np.uint8)[..., None]
    return images


def normalize(images: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """``(x / scale - mean) / std`` of uint8 ``(N, h, w, 3)``, float32 in the layout asked for."""
    pixels = arrange_channels(images, settings["channels"]).astype(np.float32)
    mean = np.asarray(settings["mean"], dtype=np.float32)
    std = np.asarray(settings["std"], dtype=np.float32)
    values = (pixels / np.float32(settings["scale"]) - mean) / std
    return np.ascontiguousarray(values if settings["layout"] == "NHWC" else values.transpose(0, 3, 1, 2))


def prepare(images: Sequence[np.ndarray] | np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """The network's input for RGB images.

    Args:
        images: uint8 ``(N, H, W, 3)``, or a list of ``(H, W, 3)`` of any sizes.
        settings: height, width, mean, std, scale, resize, layout and channels, as in the manifest.

    Returns:
        float32 ``(N, C, height, width)``, or ``(N, height, width, C)`` with the layout NHWC.
    """
    size = settings["height"], settings["width"]
    step = CHUNK_IMAGES if isinstance(images, np.ndarray) else 1
    parts = [
        normalize(fit(np.asarray(images[i : i + step]), *size, settings["resize"]), settings)
        for i in range(0, len(images), step)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- from a file to pixels -------------------------------------------------------------------------


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """uint8 ``(H, W)`` or ``(H, W, 1 | 2 | 3 | 4)`` as ``(H, W, 3)``: grey is repeated, alpha is dropped."""
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype}, not uint8")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.size == 0:
        raise ValueError(f"an array of shape {pixels.shape} is not an image (height, width, channels)")
    return np.repeat(pixels[:, :, :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[:, :, :3]


def _predict_average(row: bytearray, above: bytes | bytearray, step: int) -> None:
    for i in range(len(row)):
        left = row[i - step] if i >= step else 0
        row[i] = (row[i] + (left + above[i]) // 2) & 255


def _predict_paeth(row: bytearray, above: bytes | bytearray, step: int) -> None:
    for i in range(len(row)):
        left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
        up = above[i]
        far_left, far_up, far_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        if far_left <= far_up and far_left <= far_corner:
            guess = left
        else:
            guess = up if far_up <= far_corner else corner
        row[i] = (row[i] + guess) & 255


def _unfilter(method: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    """Undoes one row's prediction; ``step`` is the distance in bytes to the pixel on the left."""
    if method == 1:
        sums = np.frombuffer(bytes(row), np.uint8).reshape(-1, step)
        return bytearray(np.cumsum(sums, axis=0, dtype=np.uint8).tobytes())
    if method == 2:
        up = np.frombuffer(bytes(above), np.uint8)
        return bytearray((np.frombuffer(bytes(row), np.uint8) + up).tobytes())
    if method == 3:
        _predict_average(row, above, step)
    elif method == 4:
        _predict_paeth(row, above, step)
    elif method != 0:
        raise ValueError(f"PNG filter {method} does not exist")
    return row


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if zlib.crc32(kind + content).to_bytes(4, "big") != checksum:
            raise ValueError("damaged PNG: a checksum does not match")
        chunks[kind] = chunks.get(kind, b"") + content
        position += 12 + length
    if b"IHDR" not in chunks or b"IDAT" not in chunks or len(chunks[b"IHDR"]) != 13:
        raise ValueError("damaged PNG: no header or no pixels")
    return chunks


def _unpack_samples(rows: np.ndarray, bits: int, width: int, samples: int) -> np.ndarray:
    """Rows of packed bytes as uint8 ``(H, W, samples)``, not yet scaled to 0..255."""
    if bits == 16:
        rows = rows[:, ::2]
    elif bits < 8:
        unpacked = np.unpackbits(rows, axis=1).reshape(len(rows), -1, bits)
        rows = unpacked @ (1 << np.arange(bits - 1, -1, -1)).astype(np.uint8)
    return rows[:, : width * samples].reshape(len(rows), width, samples)


def decode_png(data: bytes) -> np.ndarray:
    """A PNG that is not interlaced as uint8 ``(H, W, 3)``; of 16 bits the upper 8 are kept.

    Raises:
        ValueError: the file is damaged or interlaced.
    """
    chunks = _png_chunks(data)
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if interlaced or color not in SAMPLES_OF_COLOR_TYPE or bits not in (1, 2, 4, 8, 16):
        raise ValueError("this kind of PNG (interlaced or unusual) needs Pillow: pip install pillow")
    samples = SAMPLES_OF_COLOR_TYPE[color]
    row_bytes = (width * samples * bits + 7) // 8
    expected = height * (row_bytes + 1)
    try:
        raw = zlib.decompressobj().decompress(chunks[b"IDAT"], expected)
    except zlib.error as error:
        raise ValueError(f"damaged PNG: {error}") from error
    if len(raw) != expected or expected == 0:
        raise ValueError(f"damaged PNG: {len(raw)} of {expected} bytes of pixels")
    above, rows = bytearray(row_bytes), []
    for start in range(0, expected, row_bytes + 1):
        row = bytearray(raw[start + 1 : start + 1 + row_bytes])
        above = _unfilter(raw[start], row, above, max(1, samples * bits // 8))
        rows.append(np.frombuffer(bytes(above), np.uint8))
    pixels = _unpack_samples(np.stack(rows), bits, width, samples)
    if color == 3:
        palette = np.zeros((256, 3), np.uint8)
        listed = np.frombuffer(chunks.get(b"PLTE", b""), np.uint8).reshape(-1, 3)
        palette[: len(listed)] = listed
        return np.asarray(palette[pixels[:, :, 0]])
    return to_rgb(pixels * np.uint8(255 // (2**bits - 1)) if bits < 8 else pixels)


def decode_ppm(data: bytes) -> np.ndarray:
    """A binary PGM (P5) or PPM (P6) of 8 bits as uint8 ``(H, W, 3)``.

    Raises:
        ValueError: the file is damaged or has more than 8 bits.
    """
    fields: list[int] = []
    position = 2
    while len(fields) < 3:
        while data[position : position + 1].isspace():
            position += 1
        end = position
        if data[position : position + 1] == b"#":
            position = data.index(b"\n", position)
            continue
        while data[end : end + 1].isdigit():
            end += 1
        fields.append(int(data[position:end]))
        position = end
    width, height, largest = fields
    channels = 3 if data[:2] == b"P6" else 1
    pixels = np.frombuffer(data, np.uint8, offset=position + 1)[: width * height * channels]
    if largest != 255 or len(pixels) != width * height * channels:
        raise ValueError("damaged PPM, or one of more than 8 bits")
    return to_rgb(pixels.reshape(height, width, channels))


def _decode_with_pillow(data: bytes) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                return to_rgb(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def decode_image(data: bytes) -> np.ndarray:
    """The pixels of an image file as uint8 ``(H, W, 3)``.

    Raises:
        ValueError: the data is no image, is damaged, or needs Pillow, which is not installed.
    """
    if data[:6] == b"\x93NUMPY":
        return to_rgb(np.load(io.BytesIO(data), allow_pickle=False))
    try:
        return _decode_with_pillow(data)
    except ImportError:
        pass
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return decode_png(data)
    if data[:2] in (b"P5", b"P6"):
        return decode_ppm(data)
    raise ValueError("not PNG, PPM, PGM or NPY; other formats need Pillow: pip install pillow")


# --- from a model to an answer ---------------------------------------------------------------------


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of logits ``(N, classes)``; scores that already are probabilities stay as they are."""
    scores = scores.reshape(len(scores), -1).astype(np.float64)
    if scores.min() >= 0.0 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return scores
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _settings(metadata: Mapping[str, str], model: Path) -> tuple[dict[str, Any], list[str]]:
    """Preprocessing and labels: the model's own, else those of the manifest beside it."""
    if "edgenas.preprocessing" in metadata:
        labels = json.loads(metadata.get("edgenas.labels", "[]"))
        return json.loads(metadata["edgenas.preprocessing"]), labels
    manifest = model.parent / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{model} names no preprocessing and there is no {manifest}")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    return content["preprocessing"], content.get("labels", [])


def classify(
    paths: Sequence[Path], model: Path, top: int = 5, threads: int | None = None
) -> list[dict[str, Any]]:
    """The most probable classes of every image, best first.

    Raises:
        ValueError: an image cannot be decoded, or nothing names the preprocessing.
        OSError: a file cannot be read.
    """
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    settings, labels = _settings(session.get_modelmeta().custom_metadata_map, model)
    wanted = session.get_inputs()[0]
    results = []
    for path in paths:
        try:
            image = decode_image(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"cannot read the image {path}: {error}") from error
        values = prepare([image], settings).astype(ARRAY_TYPES.get(wanted.type, np.float32))
        shares = probabilities(np.asarray(session.run(None, {wanted.name: values})[0]))[0]
        best = np.argsort(-shares, kind="stable")[:top]
        classes = [
            {
                "index": int(i),
                "label": labels[i] if i < len(labels) else str(i),
                "probability": float(shares[i]),
            }
            for i in best
        ]
        results.append({"image": str(path), "classes": classes})
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when every image was classified, 1 with one line on stderr otherwise."""
    parser = argparse.ArgumentParser(description="Classify images with an ONNX model made by EdgeNAS.")
    parser.add_argument("images", nargs="+", type=Path, help="PNG, PPM, PGM or NPY; others with Pillow")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent / "model.onnx")
    parser.add_argument("--top", type=int, default=5, help="how many classes to show")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        results = classify(options.images, options.model, options.top, options.threads)
    except ImportError as error:
        return _fail(f"{error}: pip install onnxruntime")
    except (OSError, ValueError, KeyError) as error:
        return _fail(str(error))
    if options.json:
        print(json.dumps({"model": str(options.model), "results": results}))  # noqa: T201
        return 0
    for result in results:
        print(result["image"])  # noqa: T201
        for found in result["classes"]:
            print(f"  {found['probability']:7.2%}  {found['label']}")  # noqa: T201
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
