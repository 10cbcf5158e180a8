"""A user's own data that are no .npz: folders of images, tables, arrays from Python; and names for labels."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iwae.data.loading import DatasetError, load_dataset
from iwae.data.users_file import of_arrays

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 4, 6), np.uint8)


def saved(folder, names, pictures=PICTURES):
    for name, picture in zip(names, pictures, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def rows_in(x, pictures=PICTURES):
    """Which pictures the rows of x [n, D] are."""
    whole = np.float32(pictures.reshape(len(pictures), -1) / 255)
    return [int(np.flatnonzero((whole == row).all(axis=1))[0]) for row in x]


def test_pictures_in_folders_of_classes_are_shuffled_and_split(tmp_path):
    """Else the last classes alone would be the test examples."""
    folder = saved(tmp_path / "mine", [f"{'abcd'[i // 10]}/{i:02}.png" for i in range(40)])
    saved(folder, ["a/.ipynb_checkpoints/00.png", ".hidden.png"])
    (folder / "a" / "notes.txt").write_text("no picture")
    data = load_dataset(folder)
    assert (data.name, data.kind, data.image_shape, data.classes) == ("mine", "grey", (4, 6), ("a", "b", "c", "d"))
    rows = {split: rows_in(getattr(data, split)) for split in ("train", "valid", "test")}
    assert [len(numbers) for numbers in rows.values()] == [33, 3, 4]
    assert sorted(sum(rows.values(), [])) == list(range(40))
    for split, numbers in rows.items():
        assert [number // 10 for number in numbers] == list(data.labels[split])
    assert len(set(data.labels["test"])) > 1
    again = load_dataset(f"{folder}/")
    assert again.fingerprint == data.fingerprint


def test_pictures_in_folders_of_splits_keep_the_order_of_their_names(tmp_path):
    names = [f"train/{i:02}.JPG" for i in range(20)] + [f"valid/{i}.png" for i in range(5)]
    folder = saved(tmp_path, [*names, *(f"test/{i}.png" for i in range(5))])
    data = load_dataset(folder)
    assert len(data.train) == 20 and data.labels["train"] is None and data.classes == ()
    assert (rows_in(data.valid), rows_in(data.test)) == (list(range(20, 25)), list(range(25, 30)))


def test_colour_is_made_grey_and_black_and_white_is_binary(tmp_path):
    red = np.zeros((3, 3, 3), np.uint8)
    red[..., 0] = 255
    saved(tmp_path / "colour", ["0.png", "1.png", "2.png"], [red] * 3)
    np.testing.assert_array_equal(load_dataset(tmp_path / "colour").test, np.float32(76 / 255))  # ITU-R 601 luma
    saved(tmp_path / "lines", [f"{i}.png" for i in range(9)], (PICTURES > 99).astype(bool))
    assert load_dataset(tmp_path / "lines").kind == "binary"


WRONG_PICTURES = {
    "none": ([], "expected a folder of images .*found none"),
    "other size": (["a.png", "b.png"], r"b.png: expected 6 x 4 pixels \(width x height\) as in a.png, got 5 x 4"),
    "some in no split": (["train/a.png", "b.png"], "expected every example in train, valid, test, .*found none, train"),
    "some in no class": (["train/a/a.png", "train/b.png"], "in folders of classes or none, found train/b.png"),
    "no train": (["test/a.png", "test/b.png"], "x_train is missing; expected x_train and x_test, found x_test"),
    "no picture": (["a.png", "b.png"], "b.png: expected an image; reading it gave: cannot identify image file"),
    "cut": (["a.png", "b.png"], "b.png: expected an image; reading it gave: "),
    "16 bits": (["a.png", "b.png"], "b.png: expected 8 bits a pixel, got mode I"),
}


@pytest.mark.parametrize("case", WRONG_PICTURES)
def test_wrong_pictures(tmp_path, case):
    names, message = WRONG_PICTURES[case]
    last = {"other size": PICTURES[1, :, :5], "16 bits": PICTURES[1].astype(np.uint16)}.get(case, PICTURES[1])
    saved(tmp_path, names, [PICTURES[0], last])
    if case == "no picture":
        (tmp_path / "b.png").write_bytes(b"text")
    if case == "cut":
        (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_a_table_with_labels_and_splits(tmp_path):
    x = np.random.default_rng(0).normal(3, 10, (30, 5)).round(3)
    table = pd.DataFrame(x, columns=list("abcde"))
    table.insert(2, "label", [f"class {i % 3}" for i in range(30)])
    table["split"] = ["train", "test", "valid"] * 10
    table.to_csv(tmp_path / "mine.csv", index=False)
    data = load_dataset(tmp_path / "mine.csv", allow_real=True)
    assert (data.name, data.kind, data.classes) == ("mine", "continuous", ("class 0", "class 1", "class 2"))
    np.testing.assert_array_equal(data.test, np.float32(x[1::3]))
    assert set(data.labels["train"]) == {0} and set(data.labels["test"]) == {1}
    with pytest.raises(DatasetError, match=r"mine.csv: x_train: expected values in \[0, 1\]"):
        load_dataset(tmp_path / "mine.csv")


def test_a_table_of_integers_is_of_grey_values_or_of_numbers_as_they_are(tmp_path):
    np.savetxt(tmp_path / "mine.csv", PICTURES.reshape(40, -1), "%d", delimiter=",")  # no header
    grey = load_dataset(tmp_path / "mine.csv")
    assert grey.kind == "grey"
    assert sorted(rows_in(np.concatenate([grey.train, grey.valid, grey.test]))) == list(range(40))
    real = load_dataset(tmp_path / "mine.csv", allow_real=True)
    np.testing.assert_allclose(real.test, 255 * grey.test, rtol=1e-6)


WRONG_TABLES = {
    "words": ("a,b\n1,x\n", r"column b: expected numbers \(classes stand in a column that is called label\), got 'x'"),
    "empty": ("", "expected a table of numbers; reading it gave: No columns"),
    "header alone": ("a,b\n", "column a: expected numbers .* got None"),
    "split": ("a,split\n1,train\n2,tset\n", "expected every example in train, valid, test, .*found train, tset"),
    "index of a table": (
        ",0,1\n0,7,8\n1,5,6\n",
        r"expected a name of every column, found none .* \(pandas: index=False",
    ),
    "index and names": (",a,b\n0,7,8\n1,5,6\n", "expected a name of every column, found none of the first"),
    "some labels": ("label,a\nq,1\n,2\nr,3\n", "y_train: expected integers or names .* got object"),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_wrong_tables(tmp_path, case):
    text, message = WRONG_TABLES[case]
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(tmp_path / "mine.csv", allow_real=True)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_labels_of_an_npz_may_be_names(tmp_path):
    names = np.array(["zebra", "ant"] * 10)
    np.savez(tmp_path / "m.npz", x_train=np.eye(20), y_train=names, x_test=np.eye(2, 20), y_test=["bee", "ant"])
    data = load_dataset(tmp_path / "m.npz")
    assert data.classes == ("ant", "bee", "zebra")
    assert list(data.labels["train"][:2]) == [2, 0] and list(data.labels["test"]) == [1, 0]
    assert [data.class_name(2), data.class_name(3.0)] == ["zebra", "3"]


def test_arrays_are_as_in_an_npz(tmp_path):
    given = {"x_train": PICTURES[:30], "x_test": PICTURES[30:], "y_train": ["a", "b"] * 15, "y_test": None}
    np.savez(tmp_path / "m.npz", **{key: values for key, values in given.items() if values is not None})
    data, file = of_arrays(given, False), load_dataset(tmp_path / "m.npz")
    assert data.fingerprint == file.fingerprint and data.classes == file.classes and data.kind == "grey"
    of_pandas = {key: pd.Series(["a"] * 40) if key[0] == "y" else PICTURES for key in given}
    assert of_arrays(of_pandas, False).classes == ("a",)


def test_a_dataset_that_was_cut_has_its_own_fingerprint():
    whole = load_dataset("digits")
    assert of_arrays(whole, False).fingerprint == whole.fingerprint
    part = of_arrays(dataclasses.replace(whole, train=whole.train[:5], labels={"test": whole.labels["test"]}), False)
    assert part.fingerprint != whole.fingerprint and len(part.train) == 5 and part.image_shape == (8, 8)
    np.testing.assert_array_equal(part.train_mean, whole.train[:5].mean(axis=0, dtype=float).astype(np.float32))
    camel = load_dataset("camel", synthetic_examples=20)
    assert of_arrays(camel, True).log_density is camel.log_density
    again = of_arrays(of_arrays({"x_train": PICTURES, "x_test": PICTURES, "y_test": ["q"] * 40}, False), False)
    assert again.classes == ("q",) and again.image_shape == (4, 6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PICTURES, "expected a Dataset or a dictionary of x_train, .*, got ndarray"),
        ({"x_train": PICTURES, "x_val": PICTURES}, "dictionary of x_train, x_valid, .*, got x_train, x_val"),
        ({"x_train": PICTURES}, "x_test is missing"),
        ({"x_train": PICTURES, "x_test": [[1, 2], [3]]}, "inhomogeneous shape"),
    ],
)
def test_wrong_arrays(given, message):
    with pytest.raises(ValueError, match=message):
        of_arrays(given, False)


@pytest.mark.parametrize("header", [True, False])
def test_a_header_of_numbers_is_no_example(tmp_path, header):
    """As pandas writes the columns of an array."""
    x = np.random.default_rng(0).integers(0, 256, (30, 4))
    pd.DataFrame(x).to_csv(tmp_path / "x.csv", index=False, header=header)
    data = load_dataset(tmp_path / "x.csv")
    assert sum(len(getattr(data, split)) for split in ("train", "valid", "test")) == 30


def test_grey_values_with_an_empty_cell_are_grey_values(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "51,255\n,102\n" * 9)
    data = load_dataset(tmp_path / "x.csv")
    assert data.kind == "grey" and set(data.train[~np.isnan(data.train)]) == {np.float32(0.2), np.float32(0.4), 1}
    assert data.missing == pytest.approx(1 / 4)
