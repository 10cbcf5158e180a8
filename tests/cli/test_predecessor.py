"""`iwae.cli.predecessor`: experiment files of the PyTorch predecessor are executed and become our parameters."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwae import config
from iwae.cli import command_line, predecessor, running
from iwae.config import ConfigError, Experiment

DEFAULT = Experiment("mine", seed=7, tasks=("train",), results_dir="elsewhere")

FILE = """\
import numpy as np

experiment = {{
    'name': {name!r},
    'seed': 123,
    'data': {{'name': {data!r}, 'batch_size': 20, 'path': './no such folder/', 'num_workers': 8{samples}}},
    'model': {{
        'type': {type!r},
        'X_dim': {x},  # input
        'Z_dim': {z},
        'H_dim': {h},
        'encoder_type': 'Gaussian',
        'decoder_type': {decoder!r},
        'num_samples': {k},
    }},
    'training': {{
        'scheduler': {{'gamma': 10 ** (-1/7), 'milestones': np.cumsum([3 ** i for i in range(8)])}},
        'optimizer': {{'lr': 0.001, 'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-4}},
        'early_stopping': {{'patience': 7, 'threshold': 0.01}},
        'total_epochs': 3280
    }}
}}
"""

# The shapes of the predecessor's twenty files: name, dataset, type, dimension, Z_dim, H_dim, decoder, k, n_samples.
SHAPES = [
    (f"{kind}_k_{k}_layers_{layers}", "BinarizedMNISt", kind.upper(), 784, z, h, "Bernoulli", k, None)
    for kind in ("vae", "iwae")
    for k in (1, 5, 50)
    for layers, z, h in ((1, [50], [[200, 200]]), (2, [100, 50], [[200, 200], [100, 100]]))
] + [
    ("linear", "linear2dim", "VAE", 2, 1, [], "Gaussian", 1, 1000),
    ("circle", "circle", "IWAE", 2, [2, 2], [[5, 5], [5, 5]], "Gaussian", 10, 20000),
    ("circle_1_layer", "circle", "IWAE", 2, [2], [[5, 5]], "Gaussian", 100, 20000),
    ("circle_big", "circle", "IWAE", 2, [5], [[20, 20, 5]], "Gaussian", 200, 50000),
    ("simple_2_layers", "simple_2_layers", "VAE", 2, [2, 2], [[5, 5], [5, 5]], "Gaussian", 1, 20000),
    ("two_clusters", "two_clusters", "VAE", 1, [1], [[1]], "Gaussian", 1, 20),
    ("two_close_clusters", "two_close_clusters", "VAE", 1, [1], [[5, 5]], "Gaussian", 1, 200000),
    ("two_close_2_layers", "two_close_clusters", "IWAE", 1, [1, 1], [[5, 5], [5, 5]], "Gaussian", 40, 1000),
]


def text_of(shape: tuple) -> str:
    name, data, kind, x, z, h, decoder, k, samples = shape
    more = "" if samples is None else f", 'n_samples': {samples}"
    return FILE.format(name=name, data=data, type=kind, x=x, z=z, h=h, decoder=decoder, k=k, samples=more)


def read(folder: Path, text: str) -> tuple[Experiment, list[str]]:
    path = folder / "file.py"
    path.write_text(text, encoding="utf-8")
    return predecessor.read(path, DEFAULT)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[0])
def test_every_shape_of_file_is_converted(tmp_path: Path, shape: tuple) -> None:
    name, data, kind, _, z, h, decoder, k, samples = shape
    experiment, _ = read(tmp_path, text_of(shape))
    assert (experiment.name, experiment.seed) == (name, 123)
    assert (experiment.model.objective, experiment.model.k) == (kind.lower(), k)
    assert experiment.model.latent_units == (tuple(z) if isinstance(z, list) else (z,))
    assert experiment.model.hidden_units == (tuple(map(tuple, h)) if h else ((),))
    assert experiment.model.likelihood == decoder.lower()
    if samples is None:
        assert (experiment.data.name, experiment.data.binarization) == ("binarized_mnist", "fixed")
    else:
        assert (experiment.data.name, experiment.data.binarization) == (data, "none")
        assert experiment.data.synthetic_examples == samples


def test_training_is_converted(tmp_path: Path) -> None:
    experiment, notes = read(tmp_path, text_of(SHAPES[0]))
    training = experiment.training
    assert training.schedule == "multistep"
    assert training.milestones == tuple(np.cumsum([3**i for i in range(8)])) == (1, 4, 13, 40, 121, 364, 1093, 3280)
    assert training.gamma == 10 ** (-1 / 7)
    assert (training.learning_rate, training.beta_1, training.beta_2, training.epsilon) == (1e-3, 0.9, 0.999, 1e-4)
    assert (training.early_stopping_patience, training.early_stopping_threshold) == (7, 0.01)
    assert training.epochs == 3280
    assert (experiment.tasks, experiment.results_dir) == (("train",), "elsewhere")
    assert [note.split(":")[0] for note in notes] == ["data.num_workers", "data.path"]


def test_what_is_not_said_is_the_default(tmp_path: Path) -> None:
    text = """experiment = {
        'name': 'short', 'data': {'name': 'MNIST'}, 'training': {'total_epochs': 3},
        'model': {'type': 'iwae', 'Z_dim': 5, 'H_dim': 10, 'num_samples': 2},
    }"""
    default = config.replace(DEFAULT, {"model.estimator": "dreg", "data.batch_size": 99, "training.epsilon": 0.5})
    (tmp_path / "file.py").write_text(text)
    experiment, notes = predecessor.read(tmp_path / "file.py", default)
    expected = {
        "name": "short",
        "data.name": "mnist",
        "model.k": 2,
        "model.latent_units": [5],
        "model.hidden_units": [[10]],
        "training.schedule": "constant",
        "training.epochs": 3,
    }
    assert experiment == config.replace(DEFAULT, expected)
    assert notes == []


@pytest.mark.parametrize("name", ["BinarizedMNIST", "binarizedmnist", "BINARIZED_MNIST", "binarized-mnist"])
def test_names_of_datasets_in_any_case(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, text_of(SHAPES[0]).replace("BinarizedMNISt", name))[0].data.name == "binarized_mnist"


def test_an_existing_folder_of_data_is_used(tmp_path: Path) -> None:
    text = text_of(SHAPES[0]).replace("'./no such folder/'", repr(str(tmp_path)))
    experiment, notes = read(tmp_path, text)
    assert experiment.data.path == str(tmp_path)
    assert [note.split(":")[0] for note in notes] == ["data.num_workers"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'num_workers'", "'num_worker'", r"data.num_worker: expected a known key, .*did you mean 'num_workers'"),
        ("'seed'", "'sede'", r"sede: expected a known key, got an unknown one \(did you mean 'seed'"),
        ("'gamma'", "'gama'", r"training.scheduler.gama: expected a known key"),
        ("'name': 'vae_k_1_layers_1',", "", r"name: expected a value, got none"),
        ("'num_samples': 1,", "", r"model.num_samples: expected a value, got none"),
        ("'total_epochs': 3280", "", r"training.total_epochs: expected a value, got none"),
        ("BinarizedMNISt", "cifar", r"data.name: expected one of mnist, .* got 'cifar'"),
        ("'VAE'", "'GAN'", r"model.type: expected 'VAE' or 'IWAE', got 'GAN'"),
        ("'Gaussian'", "'Bernoulli'", r"model.encoder_type: expected 'Gaussian', got 'Bernoulli'"),
        ("'Bernoulli'", "'Poisson'", r"model.decoder_type: expected 'Gaussian' or 'Bernoulli', got 'Poisson'"),
        ("784", "100", r"model.X_dim: expected 784, the dimension of binarized_mnist, got 100"),
        ("[50]", "[50, 20]", r"model.H_dim: expected as many lists"),
        ("[50]", "[0]", r"model.Z_dim\[0\]: expected an integer >= 1, got 0"),
        ("'num_samples': 1", "'num_samples': 0", r"model.num_samples: expected an integer >= 1, got 0"),
        ("0.001", "-1", r"training.optimizer.lr: expected a number > 0, got -1"),
        ("'patience': 7", "'patience': 0", r"training.early_stopping.patience: expected an integer >= 1 or None"),
        ("np.cumsum([3 ** i for i in range(8)])", "[5, 3]", r"training.scheduler.milestones: expected a list of inc"),
        ("{'lr': 0.001, 'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-4}", "3", r"training.optimizer: expected a dict"),
        (
            "10 ** (-1/7)",
            "open('none')",
            r"expected a file that Python can run, got line 18: FileNotFoundError: .*'none'",
        ),
        (
            "10 ** (-1/7)",
            "1/0",
            r"expected a file that Python can run, got line 18: ZeroDivisionError: division by zero",
        ),
        ("10 ** (-1/7)", "gamma", r"expected a file that Python can run, got line 18: NameError: name 'gamma'"),
        ("10 ** (-1/7)", "exit(3)", r"expected a file that Python can run, got line 18: SystemExit: 3"),
        ("10 ** (-1/7)", "open", r"training.scheduler.gamma: expected a number > 0, got <built-in function open>"),
        ("range(8)", "range(1, 2, 0)", r"expected a file that Python can run, got line 18: ValueError: range"),
        ("'seed': 123", "**other", r"expected a file that Python can run, got line \d+: NameError"),
        ("'seed': 123", "print: 3", r"<built-in function print>: expected a known key, got an unknown one"),
        ("experiment =", "experiments =", r"experiment: expected a dictionary of this name in the file, got none"),
        ("experiment = {", "experiment = [{", r"expected a file that Python can run, got line \d+: SyntaxError"),
        (
            "experiment =",
            "\0",
            r"expected a file that Python can run, got (line \d+: )?\w+Error: source code .* null bytes",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_name_it_has_in_the_file(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = text_of(SHAPES[0])
    assert old in text
    with pytest.raises(ConfigError, match=rf"^{tmp_path / 'file.py'}: {message}") as caught:
        read(tmp_path, text.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_the_file_is_executed_and_its_numpy_values_are_read(tmp_path: Path) -> None:
    text = "width = 2 ** 3\n" + text_of(SHAPES[0]).replace("[[200, 200]]", "np.full((1, 2), width)")
    experiment, _ = read(tmp_path, text.replace("[50]", "(np.int64(7),)").replace("10 ** (-1/7)", "np.float64(0.5)"))
    assert (experiment.model.hidden_units, experiment.model.latent_units) == (((8, 8),), (7,))
    assert experiment.training.gamma == 0.5


def test_gamma_without_milestones_is_ignored_and_told(tmp_path: Path) -> None:
    text = text_of(SHAPES[0]).replace("'milestones': np.cumsum([3 ** i for i in range(8)])", "")
    experiment, notes = read(tmp_path, text)
    assert (experiment.training.schedule, experiment.training.gamma) == ("constant", 0.1)
    assert "training.scheduler.gamma: no meaning without milestones, ignored" in notes


@pytest.mark.parametrize(
    "value", ["+".join(["1"] * 100_000), "+".join(["1"] * 1500), "[" * 1000 + "]" * 1000, "(" * 150 + "1" + ")" * 150]
)
def test_an_absurd_file_is_read_or_refused(tmp_path: Path, value: str) -> None:
    try:
        read(tmp_path, text_of(SHAPES[0]).replace("3280", value))
    except ConfigError as error:
        assert "\n" not in str(error)


def test_from_the_command_line_with_changes(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    (tmp_path / "file.py").write_text(text_of(SHAPES[0]))
    seen: list[Experiment] = []
    monkeypatch.setattr(running, "run", seen.append)
    words = ["--file", str(tmp_path / "file.py"), "--training.epochs", "3", "--name", "short"]
    with pytest.raises(SystemExit) as ended:
        command_line.main(lambda: DEFAULT, words)
    assert ended.value.code == 0
    assert [(e.name, e.training.epochs, e.data.name) for e in seen] == [("short", 3, "binarized_mnist")]
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(": ")[:2] for note in notes] == [
        ["note", "data.num_workers"],
        ["note", "data.path"],
        ["note", "training.milestones"],  # beyond three epochs
    ]


COMPLETE = {
    "name": "x",
    "seed": 1,
    "data": {"name": "circle", "batch_size": 20, "path": "p", "num_workers": 1, "n_samples": 100},
    "model": {"type": "VAE", "X_dim": 2, "Z_dim": [2], "H_dim": [[5]], "decoder_type": "Gaussian", "num_samples": 3},
    "training": {"scheduler": {"gamma": 0.5, "milestones": [3]}, "total_epochs": 9},
}
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)
PATHS = [(s, k) for s, values in COMPLETE.items() if isinstance(values, dict) for k in values] + [
    (k,) for k in COMPLETE
]


@settings(deadline=None)
@given(st.sampled_from(PATHS), anything)
def test_any_value_in_the_dictionary_is_converted_or_refused(path: tuple[str, ...], value: Any) -> None:
    theirs: dict[str, Any] = copy.deepcopy(COMPLETE)
    *section, last = path
    (theirs[section[0]] if section else theirs)[last] = value
    try:
        experiment, _ = predecessor.convert(theirs, DEFAULT)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(experiment, Experiment)
