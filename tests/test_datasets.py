from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgenas.datasets import (
    ArrayImages,
    FileImages,
    Preprocessing,
    default_preprocessing,
    labels_from_model,
    load_dataset,
    load_images,
    preprocess,
    preprocessing_from_model,
    preprocessing_metadata,
    resize,
    split,
    write_batches,
)
from edgenas.datasets import infer as infer_module
from edgenas.errors import DataError, ModelError, UsageError

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} with real images is not here")


def pillow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows first, then columns: some versions of Pillow take the order that costs less."""
    rows = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((width, height), Image.Resampling.BICUBIC)).astype(int)


def random_images(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def plain(size: int = 8, **changes: object) -> Preprocessing:
    values = {"height": size, "width": size, "mean": (0.5,) * 3, "std": (0.25,) * 3} | changes
    return Preprocessing(**values)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for label, name in enumerate(["ant", "bee", "cat"]):
        for part, count in (("train", 4), ("test", 2)):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for i, pixels in enumerate(random_images(count, 12 + label, 10, seed=label)):
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


# --- resizing --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    target=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 1000),
)
def test_resize_is_pillows_bicubic(size: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    image = random_images(1, *size, seed=seed)
    ours = resize(image, *target)[0].astype(int)
    pillow = pillow_resize(image[0], *target)
    assert ours.shape == pillow.shape
    assert np.abs(ours - pillow).max() <= 2


@needs_shared
def test_resize_of_a_photograph_is_pillows_but_for_rounding() -> None:
    images = load_images(SHARED / "imagenet_1000" / "images").images([7])
    ours = resize(images, 96, 80)[0].astype(int)
    pillow = pillow_resize(images[0], 96, 80)
    assert np.abs(ours - pillow).max() <= 1
    assert (ours != pillow).mean() < 0.001


def test_crop_keeps_the_centre_at_the_aspect_ratio() -> None:
    image = np.zeros((1, 10, 30, 3), np.uint8)
    image[:, :, 10:20] = 200
    assert (resize(image, 10, 10, "crop") == 200).all()
    assert resize(image, 10, 10, "squash").min() == 0


# --- preprocessing ---------------------------------------------------------------------------------


def test_preprocess_normalises_in_the_networks_channel_order() -> None:
    image = np.full((1, 8, 8, 3), (255, 128, 0), np.uint8)
    settings = plain(mean=(0.0, 0.5, 1.0), std=(1.0, 2.0, 4.0), channels="bgr", layout="NHWC")
    assert preprocess(image, settings)[0, 0, 0] == pytest.approx([0.0, (128 / 255 - 0.5) / 2, 0.0], abs=1e-6)
    assert preprocess(image, plain()).shape == (1, 3, 8, 8)
    assert preprocess(image, plain(channels="gray", mean=(0.0,), std=(1.0,))).shape == (1, 1, 8, 8)


def test_gray_is_pillows_luma() -> None:
    image = random_images(1, 16, 16)
    ours = preprocess(image, plain(16, channels="gray", mean=(0.0,), std=(1.0,), scale=1.0))[0, 0]
    assert np.array_equal(ours, np.asarray(Image.fromarray(image[0]).convert("L")).astype(np.float32))


@given(st.integers(1, 300))
@settings(max_examples=10, deadline=None)
def test_preprocess_of_many_is_preprocess_of_each(count: int) -> None:
    images = random_images(count, 6, 5)
    together = preprocess(images, plain())
    assert together.dtype == np.float32
    assert np.array_equal(together, preprocess(list(images), plain()))


def test_wrong_preprocessing_says_what_to_give() -> None:
    with pytest.raises(UsageError, match="3 channels; mean has 1"):
        plain(mean=(0.5,))
    with pytest.raises(UsageError, match="positive"):
        plain(std=(0.0, 1.0, 1.0))


def test_default_preprocessing_centres_the_training_images() -> None:
    dataset = load_dataset("digits")
    values = preprocess(dataset.train.images(range(len(dataset.train))), default_preprocessing(dataset, 48))
    assert abs(values.mean()) < 1e-3
    assert values.std() == pytest.approx(1.0, abs=1e-2)


def test_shards_hold_what_preprocess_gives(tmp_path: Path) -> None:
    images = ArrayImages(random_images(23, 9, 9))
    paths = write_batches(images, plain(), tmp_path / "shards", 10)
    assert [path.name for path in paths] == [f"inputs-0000{i}.npy" for i in range(3)]
    together = np.concatenate([np.load(path) for path in paths])
    assert np.array_equal(together, preprocess(images.images(range(23)), plain()))


def model_with(metadata: dict[str, str], size: int = 8, classes: int = 3) -> onnx.ModelProto:
    weights = np.random.default_rng(1).normal(size=(3 * size * size, classes)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["input"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "linear",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, size, size])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, classes])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    return model


def test_a_model_carries_its_preprocessing_and_labels(tmp_path: Path) -> None:
    wanted = plain(crop := 8, resize="crop", channels="bgr")
    model = model_with(preprocessing_metadata(wanted, ["ant", "bée", "cat"]), crop)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert preprocessing_from_model(model) == preprocessing_from_model(path) == wanted
    assert labels_from_model(path) == ("ant", "bée", "cat")
    assert preprocessing_from_model(model_with({})) is None
    assert labels_from_model(model_with({})) == ()


def test_damaged_metadata_and_files_are_model_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not valid"):
        preprocessing_from_model(model_with({"edgenas.preprocessing": '{"height": 3}'}))
    with pytest.raises(ModelError, match="not valid"):
        labels_from_model(model_with({"edgenas.labels": "[1"}))
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 100)
    for name in ("broken.onnx", "absent.onnx"):
        with pytest.raises(ModelError, match=name):
            preprocessing_from_model(tmp_path / name)


# --- loading ---------------------------------------------------------------------------------------


def test_class_folders(class_folders: Path) -> None:
    dataset = load_dataset(class_folders)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(dataset.test) == 6
    assert load_images(class_folders, part="test").labels.tolist() == [0, 0, 1, 1, 2, 2]
    mixed = dataset.train.images([0, 11])
    assert [image.shape for image in mixed] == [(12, 10, 3), (14, 10, 3)]
    assert preprocess(mixed, plain()).shape == (2, 3, 8, 8)
    assert dataset.train.array(8, 8).shape == (12, 8, 8, 3)
    assert load_dataset(class_folders / "train").test is None


def test_the_hash_is_of_contents_not_of_places(class_folders: Path, tmp_path: Path) -> None:
    before = load_dataset(class_folders).sha256
    moved = class_folders.rename(tmp_path / "elsewhere")
    assert load_dataset(moved).sha256 == before
    Image.fromarray(random_images(1, 12, 10, seed=99)[0]).save(moved / "train" / "ant" / "0.png")
    assert load_dataset(moved).sha256 != before


def test_npz_and_its_subsets(tmp_path: Path) -> None:
    images = random_images(12, 6, 7)
    path = tmp_path / "some.npz"
    np.savez(path, x_train=images, y_train=np.arange(12) % 3, x_test=images[:3], y_test=np.arange(3)[:, None])
    dataset = load_dataset(str(path))
    assert (dataset.name, dataset.image_shape, dataset.class_names) == ("some", (6, 7, 3), ("0", "1", "2"))
    some = dataset.train.subset([5, 3]).subset([1])
    assert np.array_equal(some.images([0])[0], images[3])
    assert some.labels.tolist() == [0]
    again = ArrayImages(images, np.arange(12) % 3, ("0", "1", "2"))
    assert again.sha256 == dataset.train.sha256 != dataset.train.subset(range(11)).sha256


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path: Path, suffix: str) -> None:
    grey = random_images(6, 5, 5)[..., 0]
    for name in ("train", "t10k"):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{suffix}", grey)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", np.arange(6, dtype=np.uint8) % 2)
    dataset = load_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (6, 6, (5, 5, 3))
    assert np.array_equal(dataset.train.images([2])[0], np.repeat(grey[2][..., None], 3, axis=2))
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(DataError, match="train-images"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ("file,class\nb.png,dog\na.png,cat\n", ("cat", "dog"), [1, 0]),
        ("file,class_index\na.png,0\nb.png,2\n", ("0", "1", "2"), [0, 2]),
        (
            "file,class_index,name\na.png,1\nb.png,0\n".replace("1\n", "1,x\n").replace("0\n", "0,y\n"),
            ("y", "x"),
            [1, 0],
        ),
    ],
)
def test_flat_folder_with_labels(
    tmp_path: Path, text: str, names: tuple[str, ...], labels: list[int]
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(random_images(1, 4, 4)[0]).save(tmp_path / name)
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    images = load_images(tmp_path, labels=tmp_path / "mine.csv")
    assert (images.class_names, images.labels.tolist()) == (names, labels)
    (tmp_path / "mine.csv").rename(tmp_path / "labels.csv")
    assert load_dataset(tmp_path).train.labels.tolist() == labels


def test_plain_images_have_no_labels(tmp_path: Path) -> None:
    Image.fromarray(random_images(1, 4, 4)[0]).save(tmp_path / "a.JPG")
    images = load_images(tmp_path)
    assert (len(images), images.labels) == (1, None)
    assert isinstance(images, FileImages)
    with pytest.raises(DataError, match="images but no labels") as caught:
        load_dataset(tmp_path)
    assert "labels.csv" in caught.value.hint
    with pytest.raises(DataError, match="no labels"):
        images.labels_for(["cat"])


def test_digits_are_real_and_always_split_alike() -> None:
    dataset = load_dataset("digits")
    assert (dataset.image_shape, dataset.class_names) == ((48, 48, 3), tuple("0123456789"))
    assert (len(dataset.train), len(dataset.test)) == (1347, 450)
    assert dataset.sha256 == load_dataset("digits").sha256
    assert np.bincount(dataset.test.labels).min() >= 43


def test_cifar10_is_found_in_the_cache_or_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="not in") as caught:
        load_dataset("cifar10")
    assert "cifar-10-binary.tar.gz" in caught.value.hint
    (tmp_path / "datasets").mkdir()
    records = np.random.default_rng(0).integers(0, 256, (10, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(10)
    with tarfile.open(tmp_path / "datasets" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = records.size
            archive.addfile(entry, io.BytesIO(records.tobytes()))
    dataset = load_dataset("cifar10")
    assert (len(dataset.train), len(dataset.test), dataset.class_names[3]) == (50, 10, "cat")
    assert np.array_equal(dataset.train.images([1])[0, 0, :, 0], records[1, 1:33])


def test_labels_follow_the_models_names() -> None:
    images = ArrayImages(random_images(3, 4, 4), np.array([0, 1, 1]), ("bee", "cat"))
    assert images.labels_for(["ant", "bee", "cat"]).tolist() == [1, 2, 2]
    assert images.labels_for([]).tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="the model knows ant"):
        images.labels_for(["ant"])


@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_split_is_stratified_disjoint_and_repeatable(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = np.zeros((len(labels), 1, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels)) % 256
    images = ArrayImages(pixels, labels, tuple(map(str, range(len(counts)))))
    kept, held = split(images, fraction, seed)
    ids = sorted(part.images([i])[0, 0, 0, 0] for part in (kept, held) for i in range(len(part)))
    assert ids == sorted(pixels[:, 0, 0, 0])
    for label, count in enumerate(counts):
        share = int((held.labels == label).sum())
        assert share == min(max(1, round(fraction * count)), count - 1)
    assert split(images, fraction, seed)[1].sha256 == held.sha256


# --- bad input -------------------------------------------------------------------------------------


def test_bad_folders_are_named(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data at 'nowhere'") as caught:
        load_dataset("nowhere")
    assert "digits" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        load_images(tmp_path / "empty")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(DataError, match=r"not an \.npz"):
        load_dataset(tmp_path / "text.txt")
    (class_folders / "train" / "dog").mkdir()
    with pytest.raises(DataError, match="without any image: dog"):
        load_dataset(class_folders)


def test_undecodable_images_are_named(class_folders: Path) -> None:
    (class_folders / "train" / "bee" / "7.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"1 of 13 images .* bee/7.png"):
        load_dataset(class_folders)


def test_an_image_that_breaks_off_is_named_when_it_is_read(class_folders: Path) -> None:
    path = class_folders / "train" / "ant" / "0.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"0\.png"):
        load_dataset(class_folders).train.images([0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "keys x, not x_train"),
        ({"x_train": np.zeros((2, 4, 4, 3), np.uint8)}, "no labels"),
        ({"x_train": np.zeros((2, 4, 4, 3), np.float32), "y_train": np.arange(2)}, "float32"),
        ({"x_train": np.zeros((2, 4, 4, 3), np.uint8), "y_train": np.arange(3)}, "2 images in x_train, 3"),
        (
            {"x_train": np.zeros((2, 4, 4, 3), np.uint8), "y_train": np.array([0, 2])},
            "no training image of class 1",
        ),
        ({"x_train": np.zeros((2, 4, 4, 3), np.uint8), "y_train": np.array([0, -1])}, "from -1"),
        ({"x_train": np.array([None, 1]), "y_train": np.arange(2)}, "Python objects"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "bad.npz")


def test_a_damaged_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x_train=random_images(4, 9, 9), y_train=np.arange(4))
    whole = (tmp_path / "bad.npz").read_bytes()
    for data in (whole[: len(whole) // 2], whole[:300] + b"\0" * 50 + whole[350:], b""):
        (tmp_path / "bad.npz").write_bytes(data)
        with pytest.raises(DataError, match=r"bad\.npz"):
            load_dataset(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na.png,x\n", "columns name, class"),
        ("file,class\n", "no images"),
        ("file,class\na.png,x\nc.png,y\n", "are not in .*: c.png"),
        ("file,class\na.png,x\n", "no label in .*: b.png"),
        ("file,class_index\na.png,x\nb.png,1\n", "whole numbers"),
        ("file,class_index\na.png,-1\nb.png,1\n", "goes from -1"),
    ],
)
def test_bad_label_lists(tmp_path: Path, text: str, message: str) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(random_images(1, 4, 4)[0]).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_images(tmp_path)


# --- the standalone script -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_own_png_reader_is_pillows(mode: str) -> None:
    y, x = np.mgrid[0:19, 0:13]
    smooth = np.stack([x * 15, y * 13, (x * y) % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth)
    if mode == "I;16":
        image = Image.fromarray((smooth[..., 0].astype(np.uint16) << 8) + smooth[..., 1])
    elif mode == "P":
        image = image.quantize(9)
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(
        infer_module.decode_png(buffer.getvalue()), infer_module.decode_image(buffer.getvalue())
    )


def test_own_ppm_reader_and_damaged_files() -> None:
    pixels = random_images(1, 5, 4)[0]
    data = b"P6\n# a remark\n4 5\n255\n" + pixels.tobytes()
    assert np.array_equal(infer_module.decode_ppm(data), pixels)
    assert np.array_equal(infer_module.decode_image(data), pixels)
    with pytest.raises(ValueError, match="damaged"):
        infer_module.decode_ppm(data[:-1])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    for cut in (10, 40, 60, len(buffer.getvalue()) - 20):
        with pytest.raises(ValueError, match="damaged"):
            infer_module.decode_png(buffer.getvalue()[:cut])


BARE = (
    "import runpy, sys; sys.modules['edgenas'] = None; sys.modules['PIL'] = None; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run_bare(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the script isolated, with neither edgenas nor Pillow importable."""
    command = [sys.executable, "-I", "-c", BARE, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    script = Path(infer_module.__file__)
    (tmp_path / "infer.py").write_bytes(script.read_bytes())
    model = model_with(preprocessing_metadata(plain(std=(40.0,) * 3), ["ant", "bee", "cat"]))
    onnx.save(model, tmp_path / "model.onnx")
    Image.fromarray(random_images(1, 31, 17)[0]).save(tmp_path / "picture.png")
    return tmp_path


def test_the_script_alone_agrees_with_the_package(bundle_folder: Path) -> None:
    import onnxruntime

    done = run_bare(bundle_folder / "infer.py", bundle_folder / "picture.png", "--json", "--threads", 1)
    assert done.stderr == ""
    found = json.loads(done.stdout)["results"][0]["classes"]
    model = bundle_folder / "model.onnx"
    images = load_images(bundle_folder).images([0])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = session.run(None, {"input": preprocess(images, preprocessing_from_model(model))})[0]
    expected = np.exp(scores[0]) / np.exp(scores[0]).sum()
    assert [entry["index"] for entry in found] == np.argsort(-expected).tolist()
    assert [entry["probability"] for entry in found] == pytest.approx(
        sorted(expected, reverse=True), rel=1e-5
    )
    assert {entry["label"] for entry in found} == {"ant", "bee", "cat"}
    text = run_bare(bundle_folder / "infer.py", bundle_folder / "picture.png", "--top", 1).stdout
    assert text.count("%") == 1


def test_the_script_reads_the_manifest_and_explains_what_is_missing(bundle_folder: Path) -> None:
    onnx.save(model_with({}), bundle_folder / "model.onnx")
    script, picture = bundle_folder / "infer.py", bundle_folder / "picture.png"
    done = run_bare(script, picture)
    assert (done.returncode, done.stdout) == (1, "")
    assert "names no preprocessing" in done.stderr
    manifest = {"preprocessing": plain().to_dict(), "labels": ["x", "y", "z"]}
    (bundle_folder / "manifest.json").write_text(json.dumps(manifest))
    assert run_bare(script, picture, "--top", 3).stdout.count("%") == 3
    Image.fromarray(random_images(1, 5, 5)[0]).save(bundle_folder / "other.jpg")
    assert "pip install pillow" in run_bare(script, bundle_folder / "other.jpg").stderr
    np.save(bundle_folder / "picture.npy", random_images(1, 5, 5)[0])
    assert run_bare(script, bundle_folder / "picture.npy").returncode == 0
    assert "No such file" in run_bare(script, bundle_folder / "absent.png").stderr
