"""Datasets: parsing, splits, a user's .npz and its mistakes, synthetic densities, binarization; true data if cached."""

import dataclasses
import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from scipy import integrate, stats

from iwae.data import loading, mnist
from iwae.data.catalogue import CATALOGUE, RemoteFile
from iwae.data.dataset import SPLITS
from iwae.data.loading import DatasetError, binarize, load_dataset

SYNTHETIC = ("camel", "linear2dim", "two_clusters", "two_close_clusters", "simple_2_layers", "circle")


def idx(array):
    """The bytes of an idx file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), 1)


def mnist_files(train=405, test=7, seed=0):
    """Small files in MNIST's format: name -> bytes; and the arrays in them."""
    random = np.random.default_rng(seed)
    arrays = {
        "train-images-idx3-ubyte.gz": random.integers(0, 256, (train, 28, 28), np.uint8),
        "train-labels-idx1-ubyte.gz": random.integers(0, 10, train).astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": random.integers(0, 256, (test, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte.gz": random.integers(0, 10, test).astype(np.uint8),
    }
    return {name: idx(array) for name, array in arrays.items()}, list(arrays.values())


def table(contents, *folders):
    """Files of a catalogue's entry for name -> bytes."""
    return tuple(
        RemoteFile(name, tuple(f"{f}/{name}" for f in folders), hashlib.sha256(content).hexdigest(), len(content))
        for name, content in contents.items()
    )


def with_files(monkeypatch, dataset, *files):
    """Let a dataset of the catalogue consist of other files."""
    monkeypatch.setitem(CATALOGUE, dataset, dataclasses.replace(CATALOGUE[dataset], files=files))


def place(monkeypatch, cache, dataset, contents):
    """Put files into the cache as if they had been fetched."""
    with_files(monkeypatch, dataset, *table(contents))
    (cache / dataset).mkdir(parents=True)
    for name, content in contents.items():
        (cache / dataset / name).write_bytes(content)


# Downloaded datasets


def test_mnist_is_split_and_scaled(monkeypatch, tmp_path):
    contents, (x, y, x_test, y_test) = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    data = load_dataset("mnist", tmp_path)
    assert (data.kind, data.image_shape, data.name) == ("grey", (28, 28), "mnist")
    np.testing.assert_array_equal(data.train, np.float32(x[:5].reshape(5, 784) / 255))
    np.testing.assert_array_equal(data.valid, np.float32(x[5:].reshape(400, 784) / 255))
    np.testing.assert_array_equal(data.test, np.float32(x_test.reshape(7, 784) / 255))
    for split, labels in zip(("train", "valid", "test"), (y[:5], y[5:], y_test), strict=True):
        np.testing.assert_array_equal(data.labels[split], labels)
        assert data.labels[split].dtype == np.int64
        assert getattr(data, split).dtype == np.float32
    np.testing.assert_allclose(data.train_mean, x[:5].reshape(5, 784).mean(0) / 255, rtol=1e-6)
    np.testing.assert_allclose(data.train_std, x[:5].reshape(5, 784).std(0) / 255, rtol=1e-5)


def test_parsed_once_and_parsed_again_when_damaged(monkeypatch, tmp_path):
    contents, _ = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    first = load_dataset("mnist", tmp_path)
    parsed = tmp_path / "mnist" / loading.PARSED
    good = parsed.read_bytes()

    parse = mnist.parse
    monkeypatch.setattr(mnist, "parse", None)  # parsing now would fail
    again = load_dataset("mnist", tmp_path)
    np.testing.assert_array_equal(again.test, first.test)
    np.testing.assert_array_equal(again.train_std, first.train_std)
    assert again.fingerprint == first.fingerprint
    monkeypatch.setattr(mnist, "parse", parse)

    random = np.random.default_rng(5)
    # A header that asks for less than is there, so that a reader never comes to the checksum at the end.
    damaged = [
        b"",
        good[: len(good) // 2],
        good.replace(b"(400, 28, 28)", b"(300, 28, 28)"),
    ]
    for position in [*random.integers(0, len(good), 20), *random.integers(0, 200, 20)]:
        damaged.append(good[:position] + bytes([good[position] ^ 16]) + good[position + 1 :])
    for content in damaged:
        parsed.write_bytes(content)
        mended = load_dataset("mnist", tmp_path)
        for split in SPLITS:
            np.testing.assert_array_equal(getattr(mended, split), getattr(first, split))
            np.testing.assert_array_equal(mended.labels[split], first.labels[split])
        assert mended.fingerprint == first.fingerprint
    assert [path.name for path in parsed.parent.glob("*.part")] == []


def inverted(path):
    """The arrays of a parsed file, its images inverted and all else as it is: a well-formed .npz."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return {key: 255 - x if key[0] == "x" else x for key, x in arrays.items()}


def test_parsed_images_that_were_exchanged_are_not_taken_for_the_dataset(monkeypatch, tmp_path):
    """The fingerprint in the file stays that of the true images; so it cannot be what is believed."""
    contents, _ = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    first = load_dataset("mnist", tmp_path)
    parsed = tmp_path / "mnist" / loading.PARSED
    seal = parsed.read_bytes()[-loading.SEAL :]
    for end in (b"", seal):
        np.savez(parsed, **inverted(parsed))
        parsed.write_bytes(parsed.read_bytes() + end)
        again = load_dataset("mnist", tmp_path)
        np.testing.assert_array_equal(again.test, first.test)
        assert again.fingerprint == first.fingerprint


def test_parsed_arrays_belong_to_their_files(monkeypatch, tmp_path):
    """Not to the files of another dataset, nor to those that the catalogue named before."""
    contents, _ = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    load_dataset("mnist", tmp_path)
    other, (_, _, x_test, _) = mnist_files(seed=1)
    place(monkeypatch, tmp_path, "fashion_mnist", other)
    parsed = (tmp_path / "mnist" / loading.PARSED).read_bytes()
    (tmp_path / "fashion_mnist" / loading.PARSED).write_bytes(parsed)
    expected = np.float32(x_test.reshape(7, 784) / 255)
    np.testing.assert_array_equal(load_dataset("fashion_mnist", tmp_path).test, expected)
    with_files(monkeypatch, "mnist", *table(other))
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte.gz is .*, expected"):
        load_dataset("mnist", tmp_path)


def test_read_only_cache_without_parsed_arrays_is_used(monkeypatch, tmp_path):
    contents, (_, _, x_test, _) = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(loading, "replacing", refuse)
    np.testing.assert_array_equal(load_dataset("mnist", tmp_path).test, np.float32(x_test.reshape(7, 784) / 255))


def test_binarized_mnist_is_parsed_from_its_characters(monkeypatch, tmp_path):
    random = np.random.default_rng(1)
    x = {split: random.integers(0, 2, (n, 784)) for split, n in (("train", 5), ("valid", 3), ("test", 4))}
    lines = {f"binarized_mnist_{s}.amat": "".join(" ".join(map(str, row)) + "\n" for row in x[s]).encode() for s in x}
    place(monkeypatch, tmp_path, "binarized_mnist", lines)
    data = load_dataset("binarized_mnist", tmp_path)
    assert (data.kind, data.image_shape) == ("binary", (28, 28))
    for split in x:
        np.testing.assert_array_equal(getattr(data, split), x[split])
    assert data.labels["train"] is None and data.labels["valid"] is None


@pytest.mark.parametrize("levels", [255, 1000], ids=["bytes", "not bytes"])
def test_omniglot_is_upright_and_split_as_in_the_authors_code(monkeypatch, tmp_path, levels):
    import scipy.io

    random = np.random.default_rng(2)
    images = random.integers(0, levels + 1, (1350, 28, 28)) / levels  # upright
    test_images = random.integers(0, levels + 1, (6, 28, 28)) / levels
    labels, test_labels = random.integers(0, 50, 1350), random.integers(0, 50, 6)
    path = tmp_path / "made.mat"
    content = {
        "data": np.stack([image.ravel(order="F") for image in images], axis=1),
        "target": np.eye(50)[labels].T,
        "testdata": np.stack([image.ravel(order="F") for image in test_images], axis=1),
        "testtarget": np.eye(50)[test_labels].T,
    }
    scipy.io.savemat(path, content)
    place(monkeypatch, tmp_path, "omniglot", {"chardata.mat": path.read_bytes()})
    order = np.random.RandomState(123).permutation(1350)
    for _ in range(2):  # parsed, and from the parsed file
        data = load_dataset("omniglot", tmp_path)
        assert data.kind == "grey"
        np.testing.assert_allclose(data.train, images[order[:5]].reshape(5, 784), atol=1e-7)
        np.testing.assert_allclose(data.valid, images[order[5:]].reshape(1345, 784), atol=1e-7)
        np.testing.assert_allclose(data.test, test_images.reshape(6, 784), atol=1e-7)
        np.testing.assert_array_equal(data.labels["valid"], labels[order[5:]])
        np.testing.assert_array_equal(data.labels["test"], test_labels)


def test_missing_or_damaged_download_is_one_line_with_the_command(monkeypatch, tmp_path):
    with pytest.raises(DatasetError) as caught:
        load_dataset("omniglot", tmp_path / "a b")
    assert "chardata.mat is missing" in str(caught.value)
    assert str(caught.value).endswith(f"run: python datasets_download.py omniglot --data-dir '{tmp_path}/a b'")
    assert "\n" not in str(caught.value) and not (tmp_path / "a b").exists()
    contents, _ = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(
        DatasetError, match=r"t10k-images-idx3-ubyte.gz is sha256 .* expected .*datasets_download.py mnist"
    ):
        load_dataset("mnist", tmp_path)


def test_cache_is_named_by_the_environment(monkeypatch, tmp_path):
    contents, _ = mnist_files()
    place(monkeypatch, tmp_path, "mnist", contents)
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    assert load_dataset("mnist").test.shape == (7, 784)


@pytest.mark.parametrize("name", ["~no-such-user/mine.npz", "mnist", "a\0.npz"])
def test_paths_that_are_none(name):
    with pytest.raises(
        DatasetError, match="no-such-user/.*: expected the home folder of a user, found none|a path"
    ) as e:
        load_dataset(name, "~no-such-user/cache")
    assert "\n" not in str(e.value) and not os.path.exists("~no-such-user")


def test_the_catalogue_agrees_with_the_data():
    for name in ("digits", *SYNTHETIC):
        entry, data = CATALOGUE[name], load_dataset(name, synthetic_examples=20)
        assert (entry.name, entry.dimension, entry.kind) == (name, data.train.shape[1], data.kind)
        assert data.image_shape == (entry.shape if len(entry.shape) == 2 else None)
        assert entry.synthetic == entry.about.startswith("synthetic") == (name != "digits")
        assert entry.sizes in (None, (len(data.train), len(data.valid), len(data.test)))


def test_the_catalogue_is_light():
    """It imports the standard library only: what it is imported with decides how long every command takes to start."""
    code = "import sys; before = {*sys.modules}; import iwae.data.catalogue; print(*{*sys.modules} - before)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    top = {module.split(".")[0] for module in output.split()}
    assert top - sys.stdlib_module_names == {"iwae"}


def test_unknown_name():
    with pytest.raises(DatasetError, match="dataset: expected one of mnist, .*circle or the path.*got 'mnits'"):
        load_dataset("mnits")


def test_digits():
    data = load_dataset("digits", seed=5)
    assert (len(data.train), len(data.valid), len(data.test)) == (1297, 200, 300)
    assert (data.kind, data.image_shape) == ("grey", (8, 8))
    every = np.concatenate([data.train, data.valid, data.test])
    assert len({row.tobytes() for row in every}) == 1797  # scikit-learn's images all differ: none lost, none twice
    np.testing.assert_array_equal(np.unique(every), np.arange(17, dtype=np.float32) / 16)
    # Shuffled: every digit is in every part.
    assert all(len(np.unique(data.labels[split])) == 10 for split in SPLITS)
    assert data.fingerprint == load_dataset("digits", seed=6).fingerprint


# Synthetic data


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_sizes_and_seeds(name):
    data = load_dataset(name, seed=3, synthetic_examples=70)
    dimensions = 1 if name in ("camel", "two_clusters", "two_close_clusters") else 2
    assert [x.shape for x in (data.train, data.valid, data.test)] == [(n, dimensions) for n in (70, 7, 70)]
    assert (data.kind, data.image_shape, data.train.dtype) == ("continuous", None, np.float32)
    assert data.fingerprint == load_dataset(name, seed=3, synthetic_examples=70).fingerprint
    assert data.fingerprint != load_dataset(name, seed=4, synthetic_examples=70).fingerprint
    assert not np.array_equal(data.train, data.test)
    assert len(load_dataset(name, synthetic_examples=1).valid) == 1


def test_synthetic_count_is_checked():
    with pytest.raises(DatasetError, match="synthetic_examples: expected at least 1, got 0"):
        load_dataset("camel", synthetic_examples=0)


def mixture(means, sd):
    return lambda x: np.mean([stats.multivariate_normal(m, sd**2 * np.eye(len(m))).pdf(x) for m in means], axis=0)


def circle(x):
    def density(angle, point):
        return stats.multivariate_normal([3 * np.cos(angle), 3 * np.sin(angle)], 0.16 * np.eye(2)).pdf(point)

    return [
        integrate.quad(density, 0, 2 * np.pi, (p,), points=[np.arctan2(*p[::-1]) % 6.28])[0] / (2 * np.pi) for p in x
    ]


DENSITIES = {
    "camel": mixture([[-1], [1]], 0.5),
    "two_close_clusters": mixture([[-1], [1]], 0.5),
    "two_clusters": mixture([[-2], [2]], 0.5),
    "simple_2_layers": mixture([[-2, -2], [-2, 2], [2, -2], [2, 2]], 0.7),
    "linear2dim": stats.multivariate_normal([1, 1], [[5, -4], [-4, 5]]).pdf,
    "circle": circle,
}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_log_density_agrees_with_scipy(name):
    x = load_dataset(name, synthetic_examples=30).test.astype(float)
    x[0] = 0  # the middle, where few examples are
    log_density = load_dataset(name).log_density(x)
    assert log_density.shape == (30,)
    np.testing.assert_allclose(log_density, np.log(DENSITIES[name](x)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_examples_are_drawn_from_the_density(name):
    """A histogram against the density's integral over its cells."""
    data = load_dataset(name, synthetic_examples=20_000)
    x, dimensions = data.test, data.test.shape[1]
    edges = np.linspace(-9, 11, 41)
    counts, _ = np.histogramdd(x, [edges] * dimensions)
    fine = (np.arange(400) + 0.5) / 400 * 20 - 9  # ten points a cell
    points = np.stack(np.meshgrid(*[fine] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    density = np.exp(data.log_density(points)).reshape([40, 10] * dimensions)
    expected = density.sum(axis=tuple(range(1, 2 * dimensions, 2))) * 0.05**dimensions
    assert expected.sum() == pytest.approx(1, abs=1e-3)
    usual = expected * len(x) > 5
    chi_square = np.sum((counts - expected * len(x))[usual] ** 2 / (expected * len(x))[usual])
    # Mean usual.sum(), standard deviation sqrt(2 usual.sum()).
    assert abs(chi_square - usual.sum()) < 4 * np.sqrt(2 * usual.sum())


def test_camel_has_the_known_entropy():
    data = load_dataset("camel", synthetic_examples=50_000)
    log_density = data.log_density(data.test)
    stderr = log_density.std() / np.sqrt(len(log_density))
    assert log_density.mean() == pytest.approx(-1.358, abs=4 * stderr + 5e-4)  # -1.358: quadrature, rounded


def test_cluster_labels():
    data = load_dataset("simple_2_layers")
    means = np.array([data.train[data.labels["train"] == c].mean(0) for c in range(4)])
    # 10,000 examples, 2,500 a cluster, sd 0.7: standard error 0.014.
    np.testing.assert_allclose(means, [[-2, -2], [-2, 2], [2, -2], [2, 2]], atol=5 * 0.014)
    assert load_dataset("circle").labels == dict.fromkeys(SPLITS)


# A user's file


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def users(n=30, shape=(4, 6), test=5, seed=0):
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (n, *shape), np.uint8),
        "x_test": random.integers(0, 256, (test, *shape), np.uint8),
        "y_train": random.integers(0, 3, n),
        "y_test": random.integers(0, 3, test),
    }


def test_users_images_with_labels_and_no_valid(tmp_path):
    arrays = users()
    data = load_dataset(save(tmp_path / "mine.npz", **arrays))
    assert (data.name, data.kind, data.image_shape) == ("mine", "grey", (4, 6))
    x = np.float32(arrays["x_train"].reshape(30, 24) / 255)
    np.testing.assert_array_equal(data.train, x[:27])
    np.testing.assert_array_equal(data.valid, x[27:])
    np.testing.assert_array_equal(data.labels["train"], arrays["y_train"][:27])
    np.testing.assert_array_equal(data.labels["valid"], arrays["y_train"][27:])
    np.testing.assert_array_equal(data.labels["test"], arrays["y_test"])


@pytest.mark.parametrize("channels, shape", [(3, (4, 6, 3)), (1, (4, 6))])
def test_users_images_with_channels(tmp_path, channels, shape):
    arrays = users(shape=(4, 6, channels))
    data = load_dataset(save(tmp_path / "mine.npz", **arrays))
    assert (data.kind, data.image_shape) == ("grey", shape)
    np.testing.assert_array_equal(data.test, np.float32(arrays["x_test"].reshape(5, -1) / 255))


def test_users_own_valid(tmp_path):
    arrays = users()
    valid = arrays["x_train"][:2]
    data = load_dataset(save(tmp_path / "mine.npz", **arrays, x_valid=valid))
    assert (len(data.train), len(data.valid), data.labels["valid"]) == (30, 2, None)


def test_the_same_values_have_the_same_fingerprint(tmp_path):
    arrays = users(shape=(4, 4))
    floats = {key: np.float64(x).reshape(-1, 16) / 255 if key[0] == "x" else x for key, x in arrays.items()}
    first = load_dataset(save(tmp_path / "a.npz", **arrays))
    second = load_dataset(save(tmp_path / "b.npz", **floats))
    assert second.image_shape == (4, 4)  # a square D
    assert first.fingerprint == second.fingerprint
    arrays["x_test"][-1, -1, -1] ^= 1
    assert load_dataset(save(tmp_path / "c.npz", **arrays)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "dtype, one", [(bool, 1), (np.uint8, 1), (np.uint8, 255), (np.int64, 255), (np.float16, 1), (np.float64, 1)]
)
def test_users_binary_pixels(tmp_path, dtype, one):
    x = np.random.default_rng(0).integers(0, 2, (9, 5))
    path = save(tmp_path / "mine.npz", x_train=(x * one).astype(dtype), x_test=(x[:4] * one).astype(dtype))
    data = load_dataset(path)
    assert (data.kind, data.image_shape) == ("binary", None)
    np.testing.assert_array_equal(data.test, x[:4])


def test_a_dark_split_is_scaled_as_the_others(tmp_path):
    arrays = users()
    arrays["x_test"] = np.ones_like(arrays["x_test"])
    np.testing.assert_array_equal(load_dataset(save(tmp_path / "m.npz", **arrays)).test, np.float32(1 / 255))


def test_real_numbers_on_request_only(tmp_path):
    x = np.random.default_rng(0).normal(0, 10, (40, 9))
    path = save(tmp_path / "mine.npz", x_train=x, x_test=x[:3])
    with pytest.raises(DatasetError, match=r"x_train: expected values in \[0, 1\]"):
        load_dataset(path)
    data = load_dataset(path, allow_real=True)
    assert (data.kind, data.image_shape) == ("continuous", None)
    np.testing.assert_array_equal(data.train, x[:36].astype(np.float32))
    np.testing.assert_allclose(data.train_std, x[:36].std(0), rtol=1e-5)
    assert load_dataset(save(tmp_path / "grey.npz", **users()), allow_real=True).kind == "grey"


def changed(**changes):
    """users() with entries replaced, or taken out where None."""
    return {key: value for key, value in {**users(), **changes}.items() if value is not None}


def with_value(value, index=(3, 1, 2), dtype=np.float64):
    x = np.zeros((30, 4, 6), dtype)
    x[index] = value
    return x


WRONG = {
    "no x_train": (
        changed(x_train=None),
        "x_train is missing; expected x_train and x_test, found x_test, y_train, y_test",
    ),
    "no x_test": (changed(x_test=None), "x_test is missing"),
    "nothing": ({}, "x_train is missing.*found nothing"),
    "one axis": (changed(x_train=np.zeros(30)), r"x_train: expected \[n, D\] or \[n, height, width\].*got \[30\]"),
    "colour": (changed(x_test=np.zeros((5, 4, 6, 3))), r"x_test: expected \[n, 4, 6\] as x_train, got \[5, 4, 6, 3\]"),
    "two channels": (
        changed(x_train=np.zeros((30, 4, 6, 2))),
        r"x_train: expected .* width, 3\] .*got \[30, 4, 6, 2\]",
    ),
    "no width": (changed(x_train=np.zeros((30, 0))), r"x_train: expected .* got \[30, 0\]"),
    "empty train": (changed(x_train=np.zeros((0, 4, 6))), r"x_train: expected .*at least one example, got \[0, 4, 6\]"),
    "empty test": (changed(x_test=np.zeros((0, 4, 6))), r"x_test: expected .*at least one example, got \[0, 4, 6\]"),
    "empty valid": (changed(x_valid=np.zeros((0, 4, 6))), r"x_valid: expected .*at least one example, got \[0, 4, 6\]"),
    "other width": (changed(x_test=np.zeros((5, 4, 7))), r"x_test: expected \[n, 4, 6\] as x_train, got \[5, 4, 7\]"),
    "flat test": (changed(x_test=np.zeros((5, 24))), r"x_test: expected \[n, 4, 6\] as x_train, got \[5, 24\]"),
    "text": (changed(x_train=np.full((30, 4, 6), "a")), "x_train: expected integers 0..255 or floats, got dtype <U1"),
    "complex": (changed(x_train=np.zeros((30, 4, 6), complex)), "x_train: expected .* got dtype complex128"),
    "NaN alone": (
        changed(x_test=with_value(np.nan, 3), y_test=None),
        r"x_test: example 3: expected a value, found all missing",
    ),
    "NaN in training": (
        changed(x_train=with_value(np.nan, np.s_[:, 1, 2])),
        "x_train: column 8: expected a value, fou",
    ),
    "infinite": (changed(x_train=with_value(-np.inf)), r"x_train: expected finite .*-inf at \[3, 1, 2\]"),
    "too large": (changed(x_train=with_value(1e300)), r"x_train: expected finite float32 .*1e\+300 at"),
    "0..255 floats": (
        changed(x_train=with_value(254.0)),
        r"x_train: expected values in \[0, 1\], found 0 to 254, first 254 at \[3, 1, 2\]; grey values 0..255 .* uint8",
    ),
    "hardly above": (
        changed(x_train=with_value(1.0000001)),
        r"found 0 to 1\.0000001, first 1\.0000001 at \[3, 1, 2\]$",
    ),
    "hardly above, float32": (changed(x_train=with_value(1.0000001, dtype=np.float32)), r"0 to 1\.0000001, first 1\.0"),
    "negative": (changed(x_train=with_value(-0.5)), r"found -0.5 to 0, first -0.5 at \[3, 1, 2\]$"),
    "above 255": (changed(x_train=with_value(300.0)), r"found 0 to 300, first 300 at \[3, 1, 2\]$"),
    "integers": (
        changed(x_train=with_value(-7, dtype=np.int8)),
        r"expected integers 0..255, found -7 to 0, first -7 at",
    ),
    "integers above": (changed(x_train=with_value(256, dtype=np.int16)), "expected integers 0..255, found 0 to 256"),
    "labels": (
        changed(y_train=np.zeros(29, int)),
        r"y_train: expected integers or names \[30\], one an example, got int64 \[29\]",
    ),
    "one-hot": (
        changed(y_test=np.zeros((5, 3), int)),
        r"y_test: expected integers or names \[5\].* got int64 \[5, 3\]",
    ),
    "float labels": (changed(y_test=np.zeros(5)), r"y_test: expected integers or names \[5\].* got float64 \[5\]"),
    "y without x": (changed(y_valid=np.zeros(3, int)), "y_valid is there, but x_valid is missing"),
    "one example": (changed(x_train=np.zeros((1, 4, 6)), y_train=None), "x_train: expected at least 2 .* got 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_users_files(tmp_path, case):
    arrays, message = WRONG[case]
    path = save(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DatasetError, match=message) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


def test_one_example_each_is_enough(tmp_path):
    x = np.ones((1, 3), np.uint8)
    data = load_dataset(save(tmp_path / "mine.npz", x_train=x, x_valid=x, x_test=x))
    assert (len(data.train), len(data.valid), len(data.test)) == (1, 1, 1)
    np.testing.assert_array_equal(data.train_std, 0)
    two = load_dataset(save(tmp_path / "two.npz", x_train=np.ones((2, 3)), x_test=x))
    assert (len(two.train), len(two.valid)) == (1, 1)


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path):
    trap = Trap()
    trap.path = tmp_path / "executed"
    array = np.array([[trap]], dtype=object)
    np.savez(tmp_path / "object.npz", x_train=array, x_test=np.zeros((1, 1)))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(trap))
    for name, message in (("object.npz", "Object arrays cannot be loaded"), ("pickle.npz", "not a zip file")):
        with pytest.raises(DatasetError, match=f"{name}: expected an .npz of plain arrays.*{message}"):
            load_dataset(tmp_path / name)
    assert not trap.path.exists()
    np.savez(tmp_path / "beside.npz", **users(), notes=array)  # what is not asked for is not read
    assert load_dataset(tmp_path / "beside.npz").train.shape == (27, 24)
    assert not trap.path.exists()


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(DatasetError, match="none.npz: no such file"):
        load_dataset(tmp_path / "none" / "none.npz")
    assert not (tmp_path / "none").exists()
    path = save(tmp_path / "cut.npz", **users())
    whole = path.read_bytes()
    for content in (b"", b"x_train", whole[:1000], whole[:200] + b"!" + whole[201:]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="cut.npz: expected an .npz of plain arrays"):
            load_dataset(path)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DatasetError, match="folder.npz: expected an .npz"):
        load_dataset(tmp_path / "folder.npz")


# Binarization


@pytest.mark.parametrize("how", ["stochastic", "fixed"])
def test_binarization_draws_each_pixel_by_its_grey_value(how):
    grey = np.linspace(0, 1, 11, dtype=np.float32)
    n = 40_000
    drawn = binarize(np.tile(grey, (n, 1)), how, seed=7)
    assert drawn.dtype == np.float32 and drawn.shape == (n, 11)
    assert set(np.unique(drawn)) == {0, 1}
    stderr = np.sqrt(grey * (1 - grey) / n)  # zero for 0 and 1, which must be exact
    assert (np.abs(drawn.mean(0) - grey) <= 4 * stderr).all()
    # Pixels are independent: the correlation of two of them has standard error 1 / sqrt(n).
    assert abs(np.corrcoef(drawn[:, 4], drawn[:, 5])[0, 1]) < 4 / np.sqrt(n)
    np.testing.assert_array_equal(drawn, binarize(np.tile(grey, (n, 1)), how, seed=7))
    assert not np.array_equal(drawn, binarize(np.tile(grey, (n, 1)), how, seed=[7, 1]))


def test_other_binarizations():
    grey = np.array([[0, 0.25, 0.5, 0.75, 1]])
    np.testing.assert_array_equal(binarize(grey, "threshold", 0), [[0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(binarize(grey, "none", 0), grey)
    np.testing.assert_array_equal(binarize(np.array([[-3.5, 9]]), "none", 0), [[-3.5, 9]])
    assert binarize(grey, "threshold", 0).dtype == binarize(grey, "none", 0).dtype == np.float32


@pytest.mark.parametrize("how", ["stochastic", "threshold", "none"])
def test_missing_pixels_stay_missing(how):
    grey = np.array([[0, np.nan, 1, np.nan]])
    np.testing.assert_array_equal(binarize(grey, how, 0), grey)


def test_binarize_refuses():
    with pytest.raises(ValueError, match="binarization: expected stochastic, fixed, threshold or none, got 'dynamic'"):
        binarize(np.zeros((2, 3)), "dynamic", 0)
    with pytest.raises(ValueError, match=r"got 0\.5 to 1\.0000001$"):
        binarize(np.array([[0.5, 1.0000001]]), "fixed", 0)
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"binarization: expected values in \[0, 1\]"):
            binarize(np.array([[0.5, bad]]), "stochastic", 0)


# True data


@pytest.fixture
def cached():
    def load(name):
        if not os.environ.get("IWAE_DATA_DIR"):
            pytest.skip("IWAE_DATA_DIR is not set: no true data")
        try:
            return load_dataset(name)
        except DatasetError as error:
            pytest.skip(str(error))

    return load


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist", "omniglot", "fashion_mnist"])
def test_the_catalogue_agrees_with_true_data(cached, name):
    entry, data = CATALOGUE[name], cached(name)
    assert entry.sizes == (len(data.train), len(data.valid), len(data.test))
    assert (entry.kind, entry.shape) == (data.kind, data.image_shape)


def test_true_mnist(cached):
    data = cached("mnist")
    assert [len(x) for x in (data.train, data.valid, data.test)] == [59_600, 400, 10_000]
    assert list(data.labels["train"][:5]) == [5, 0, 4, 1, 9]
    assert list(data.labels["test"][:5]) == [7, 2, 1, 0, 4]
    # The pixel mean of all 60,000 training images, commonly quoted as 0.1307.
    assert np.concatenate([data.train, data.valid]).mean(dtype=float) == pytest.approx(0.1306604, abs=1e-6)


def test_true_binarized_mnist(cached):
    data = cached("binarized_mnist")
    assert [len(x) for x in (data.train, data.valid, data.test)] == [50_000, 10_000, 10_000]
    means = [x.mean(dtype=float) for x in (data.train, data.valid, data.test)]
    assert means == pytest.approx([0.130562, 0.131127, 0.132512], abs=5e-7)


def test_true_binarized_test_images_are_mnists_sorted_by_class(cached):
    data, mnist = cached("binarized_mnist"), cached("mnist")
    order = np.argsort(mnist.labels["test"], kind="stable")
    np.testing.assert_array_equal(data.labels["test"], mnist.labels["test"][order])
    grey = mnist.test[order]
    assert not ((data.test == 1) & (grey == 0)).any() and not ((data.test == 0) & (grey == 1)).any()


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist", "omniglot", "fashion_mnist"])
def test_true_data_loads_in_under_a_second(cached, name):
    cached(name)
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        cached(name)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1
