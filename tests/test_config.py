"""`iwae.config`: every rule, the names in its messages, JSON without loss, and whatever a dictionary may hold."""

import copy
import dataclasses
import json
import math
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_configurations import WRONG, WRONG_FROM_PYTHON_ONLY, changed

from iwae import config
from iwae.config import ConfigError, Data, Evaluation, Experiment, Model, Training

ROOT = Path(__file__).parents[1]

unedited = runpy.run_path(str(ROOT / "experiments.py"))["experiment"]


@pytest.mark.parametrize(("changes", "named"), WRONG + WRONG_FROM_PYTHON_ONLY)
def test_wrong_configuration_is_refused_in_one_line_that_names_the_parameter(changes: dict, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_dict(changed(config.to_dict(Experiment("run")), changes))
    message = str(caught.value)
    assert message.startswith(f"{named}: expected ")
    assert ", got " in message
    assert "\n" not in message


def test_the_table_of_wrong_configurations_is_long_enough() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Model(k=0), "model.k: expected an integer >= 1, got 0"),
        (lambda: Model(k=True), "model.k: expected an integer >= 1, got True"),
        (lambda: Data(name="mnits"), "(did you mean 'mnist'?)"),
        (lambda: Data(name="Omniglot"), "(did you mean 'omniglot'?)"),
        (lambda: Model(objective="iwea"), "(did you mean 'iwae'?)"),
        (lambda: Model(estimator="sampeld"), "(did you mean 'sampled'?)"),
        (lambda: Model(kk=3), "model.kk: expected the name of a parameter, got an unknown one (did you mean 'k'?)"),
        (lambda: Experiment("run", modle=Model()), "(did you mean 'model'?)"),
        (lambda: Experiment("run", data={}), "data: expected parameters of the class Data, got {}"),
        (lambda: Model(k=2**31), "(the largest is 2147483647)"),
        (lambda: Training(learning_rate=math.inf), "got inf (it must be finite)"),
        (lambda: Training(learning_rate=1e39), "got 1e+39 (it must be finite in float32)"),
        (lambda: Training(beta_2=1 - 1e-12), "and < 1, got 0.999999999999 (which is 1 in float32)"),
        (lambda: Training(gamma=0.5), "training.gamma: expected 0.1 with training.schedule 'burda' (it belongs to"),
        (
            lambda: Experiment(accept_changes=True),
            "accept_changes: expected False without a name (one that is made changes too)",
        ),
        (lambda: Experiment(results_dir="~nosuchuser/x"), "where ~ is a home folder that exists, got '~nosuchuser/x'"),
        (lambda: Model(objective="tempered"), "got 'tempered' (one of your own: import the file that registers it)"),
        (lambda: Training(epochs=122, stages=5), "training.epochs: expected at most 121,"),
        (lambda: Evaluation(examples=0), "evaluation.examples: expected an integer >= 1 or None, got 0"),
    ],
)
def test_message(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


RIGHT = [
    {"data.name": "mine/pictures.npz"},
    {"data.name": "mine/pictures"},
    {"data.name": "mine.csv"},
    {"data.name": "arrays"},
    {"data.name": "camel", "data.binarization": "none", "model.likelihood": "gaussian"},
    {"data.name": "mine.npz", "data.binarization": "none"},
    {"data.path": "cache"},
    {"model.latent_units": [100, 50], "model.hidden_units": [[200, 200], [100, 100]]},
    {"model.latent_units": [3, 2, 1], "model.hidden_units": [[7], [6, 5], []], "model.estimator": "sampled"},
    {"model.hidden_units": [[]]},
    {"model.network": "conv", "model.channels": [16, 32, 64], "model.hidden_units": [[]]},
    {"data.name": "fashion_mnist", "data.binarization": "none", "model.likelihood": "discretized_logistic"},
    {"model.objective": "vae", "model.beta": 4, "model.beta_warmup_epochs": 10},
    {"model.objective": "vae_analytic_kl", "model.beta": 0},
    {"model.objective": "vae", "model.estimator": "sticking_the_landing"},
    {"model.condition": "labels", "model.prior": "labels", "model.estimator": "dreg"},
    {"model.condition": "labels", "model.objective": "vae_analytic_kl"},
    {"model.estimator": "dreg"},
    {"model.objective": "vae", "model.estimator": "dreg"},
    {"model.objective": "ciwae", "model.estimator": "dreg"},
    {"model.objective": "renyi", "model.alpha": -2},
    {"model.objective": "renyi", "model.alpha": 1 + 1e-9},
    {"model.objective": "miwae", "model.groups": 8},
    {"model.objective": "piwae", "model.groups": 8},
    {"model.objective": "ciwae", "model.mixture": 1},
    {"training.schedule": "constant", "training.epochs": 3},
    {"training.schedule": "multistep", "training.epochs": 30, "training.milestones": [10, 20], "training.gamma": 0.5},
    {"training.stages": 2, "training.epochs": 4},
    {"training.early_stopping_patience": 3, "training.early_stopping_threshold": 0.1},
    {"training.start_from": "results/other"},
    {"evaluation.splits": ["valid", "test"], "evaluation.examples": 100},
    {"tasks": ["plot"]},
    {"tasks": ["posterior", "tightness", "snr"], "evaluation.posterior_inputs": [7, 0, 7]},
    {"name": "größe 1"},
]


@pytest.mark.parametrize("changes", RIGHT)
def test_right_configuration_is_accepted_and_survives_json(changes: dict) -> None:
    experiment = config.from_dict(changed(config.to_dict(Experiment("run")), changes))
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    names = [name for name, _, _ in config.differences(Experiment("run"), experiment)]
    assert sorted(names) == sorted(changes)


def test_defaults_are_those_of_the_paper() -> None:
    experiment = Experiment("run")
    assert experiment.data.batch_size == 20 and experiment.data.binarization == "stochastic"
    assert experiment.model.hidden_units == ((200, 200),) and experiment.model.latent_units == (50,)
    training = experiment.training
    assert (training.learning_rate, training.beta_1, training.beta_2, training.epsilon) == (1e-3, 0.9, 0.999, 1e-4)
    assert (training.schedule, training.stages, training.epochs) == ("burda", 8, None)
    assert (experiment.evaluation.k, experiment.evaluation.active_unit_threshold) == (5000, 0.01)


def test_values_are_converted_where_nothing_is_lost() -> None:
    model = Model(k=np.int64(5), latent_units=[3, np.int32(2)], hidden_units=[[4], (5, 6)])
    assert model == Model(k=5, latent_units=(3, 2), hidden_units=((4,), (5, 6)))
    assert type(model.k) is int and all(type(units) is int for units in model.latent_units)
    training = Training(learning_rate=1, beta_1=np.float32(0.5))
    assert type(training.learning_rate) is float and type(training.beta_1) is float


def test_a_value_that_cannot_be_shown_is_refused_in_one_line() -> None:
    class Nasty:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (Nasty(), np.zeros((3, 3)), "two\nlines", 10**5000, ["long"] * 1000):
        with pytest.raises(ConfigError) as caught:
            Model(k=value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_experiments_are_values() -> None:
    experiment = Experiment("run", model=Model(k=5))
    assert copy.deepcopy(experiment) == experiment
    assert hash(dataclasses.replace(experiment)) == hash(experiment)
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 4  # type: ignore[misc]
    with pytest.raises(ConfigError, match="^seed: "):
        dataclasses.replace(experiment, seed=-1)


def test_run_dir() -> None:
    assert Experiment("run", results_dir="some/where").run_dir == os.path.join("some/where", "run")


def test_differences_name_every_parameter_and_both_values() -> None:
    a = Experiment("a", model=Model(k=5))
    b = Experiment("a", seed=7, model=Model(k=50, hidden_units=((10,),)))
    assert config.differences(a, b) == [
        ("seed", 123, 7),
        ("model.k", 5, 50),
        ("model.hidden_units", ((200, 200),), ((10,),)),
    ]
    assert config.differences(a, a) == []


def test_every_parameter_is_required_in_a_dictionary() -> None:
    complete = config.to_dict(Experiment("run"))
    for name in config.flatten(Experiment("run")):
        values = copy.deepcopy(complete)
        *section, last = name.split(".")
        del (values[section[0]] if section else values)[last]
        with pytest.raises(ConfigError, match=rf"^{name}: expected a value, got none \(the parameter is missing\)$"):
            config.from_dict(values)


@pytest.mark.parametrize("values", [[], None, 3, "\ud800"])
def test_what_is_no_experiment_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="^experiment: expected"):
        config.from_dict(values)


def test_json_nan_is_refused() -> None:
    text = json.dumps(config.to_dict(Experiment("run"))).replace('"beta": 1.0', '"beta": NaN')
    with pytest.raises(ConfigError, match=r"^model\.beta: expected a number >= 0, got nan"):
        config.from_dict(json.loads(text))


def test_a_registered_objective_is_accepted_with_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^model\.objective: "):
        Model(objective="mine")
    monkeypatch.setitem(config.OBJECTIVES, "mine", "an objective of a user")
    assert Model(objective="mine", alpha=0.3, groups=4, mixture=0.1, beta=2).objective == "mine"
    assert Model(objective="mine", estimator="dreg").estimator == "dreg"  # it is checked when the model is made
    with pytest.raises(ConfigError, match=r"^model\.estimator: "):
        Model(objective="mine", estimator="sampled")


def test_an_experiment_with_an_unregistered_objective_can_be_read_and_nothing_is_registered() -> None:
    values = changed(config.to_dict(Experiment("run")), {"model.objective": "mine", "model.alpha": 0.3})
    with pytest.raises(ConfigError, match=r"^model\.objective: "):
        config.from_dict(values)
    registered = dict(config.OBJECTIVES)
    experiment = config.from_dict(values, any_objective=True)
    assert config.OBJECTIVES == registered
    assert experiment.model.objective == "mine" and isinstance(experiment.model.objective, config.Unregistered)
    again = pickle.loads(pickle.dumps(config.replace(experiment, {"seed": 7})))
    assert isinstance(again.model.objective, config.Unregistered) and again.seed == 7
    assert not isinstance(
        config.from_dict(config.to_dict(Experiment("run")), any_objective=True).model.objective, config.Unregistered
    )


# ---- the name that is made from the parameters ----


def test_the_unedited_file_is_the_default_experiment() -> None:
    experiment = unedited()
    assert experiment == config.DEFAULT
    assert (type(experiment.name), experiment.name) == (config.MadeName, "digits_iwae_k50")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "digits_iwae_k50"),
        ({"model.k": 5}, "digits_iwae_k5"),
        ({"model.objective": "vae", "seed": 7}, "digits_vae_k50_seed7"),
        ({"data.name": "my/pictures 2.npz"}, "pictures_2_iwae_k50"),
        ({"data.name": "pictures/"}, "pictures_iwae_k50"),
        ({"data.name": "table.csv"}, "table_iwae_k50"),
        ({"training.stages": 8, "model.latent_units": [50]}, "digits_iwae_k50_latent_units50_stages8"),
        ({"model.latent_units": [100, 50], "model.hidden_units": [[9, 8], [7]]},
         "digits_iwae_k50_latent_units100-50_hidden_units9-8_7"),
        ({"evaluation.k": 5, "tasks": ["plot"], "results_dir": "x", "overwrite": True}, "digits_iwae_k50"),
        ({"training.updates_per_call": 7, "training.checkpoint_seconds": 3, "data.path": "y"}, "digits_iwae_k50"),
        ({"name": "mine", "model.k": 5}, "mine"),
    ],
)  # fmt: skip
def test_a_made_name_says_what_differs_from_the_default_experiment(changes: dict, name: str) -> None:
    experiment = config.replace(unedited(), changes)
    assert experiment.name == name
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    assert json.loads(json.dumps(config.to_dict(experiment)))["name"] == name


def test_a_made_name_follows_every_kind_of_replacement_but_not_its_run_once_read() -> None:
    experiment = dataclasses.replace(unedited(), model=Model(k=5, latent_units=(2,)))
    assert experiment.name == copy.deepcopy(experiment).name == "digits_iwae_k5"
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    read = config.from_dict(json.loads(json.dumps(config.to_dict(experiment))))
    assert config.replace(read, {"model.k": 7}).name == "digits_iwae_k5"


def test_a_made_name_is_a_folder_name_whatever_it_says() -> None:
    numbers = list(range(1, 200))
    layers = Model(latent_units=numbers, hidden_units=[numbers] * 199)
    for experiment in (Experiment(model=layers), Experiment(data=Data(name="a/" + "é" * 200 + "?.npz"))):
        assert Experiment(str(experiment.name)).name == experiment.name
    other = Experiment(model=Model(latent_units=numbers, hidden_units=[numbers[1:]] * 199))
    assert other.name != Experiment(model=layers).name


def test_a_run_does_not_start_from_itself_under_its_made_name() -> None:
    name = Experiment(training=Training(stages=5, start_from="x")).name
    assert name == "digits_iwae_k50_latent_units50_start_from-x"


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/a/user")
    experiment = Experiment("run", results_dir="~/x", data=Data(name="~/mine.npz", path="~"))
    assert experiment.run_dir == "/home/of/a/user/x/run"
    assert (experiment.data.name, experiment.data.path) == ("/home/of/a/user/mine.npz", "/home/of/a/user")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (True, "True"), ((100, 50), "100,50"), (((200, 200), (100,)), "200,200 100"), ((), "none"),
     (((),), "none"), (((5,), ()), "5 none"), (None, "None"), (("train", "plot"), "train,plot")],
)  # fmt: skip
def test_values_as_text(value: Any, text: str) -> None:
    assert config.written(value) == text


def test_every_task_says_its_parameters() -> None:
    parameters = config.TASK_PARAMETERS
    assert {task for tasks in parameters.values() for task in tasks} == {"evaluate", "plot", *config.TASKS}
    assert parameters["evaluation.posterior_inputs"] == ("plot", "posterior", "snr")
    assert set(parameters) <= set(config.flatten(Experiment("run")))
    assert set(config.INCIDENTAL) <= set(config.flatten(Experiment("run")))


def test_the_module_needs_the_standard_library_only() -> None:
    """Of the package it needs what needs no more than that either."""
    code = (
        "import importlib, sys, types\n"
        f"sys.modules['iwae'] = package = types.ModuleType('iwae'); package.__path__ = [{str(ROOT / 'iwae')!r}]\n"
        "importlib.import_module('iwae.config')\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    allowed = {"__main__", "iwae", "iwae.config", "iwae.sections", "iwae.data", "iwae.data.catalogue"}
    assert set(result.stdout.split()) <= allowed


# ---- Hypothesis ----

counts = st.integers(1, 2**31 - 1)
rates = st.floats(min_value=1e-10, max_value=1e38)
folder_names = st.text(st.characters(codec="ascii", exclude_characters='/\\:*?"<>|', categories=("L", "N")), min_size=1)
widths = st.lists(counts, max_size=3)


def subsets(*items: str) -> st.SearchStrategy:
    return st.lists(st.sampled_from(items), min_size=1, unique=True)


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    layers = draw(st.integers(1, 4))
    epochs = draw(st.none() | counts)
    stages = draw(st.integers(1, config.MAX_STAGES))
    limited = epochs if epochs is None else 1 + epochs % ((3**stages - 1) // 2)
    splits = subsets("train", "valid", "test").map(lambda some: list(dict.fromkeys([*some, "test"])))
    return Experiment(
        name=draw(folder_names),
        seed=draw(st.integers(0, 2**31 - 1)),
        tasks=draw(subsets("train", "evaluate", "plot", "posterior", "tightness", "snr")),
        overwrite=draw(st.booleans()),
        accept_changes=draw(st.booleans()),
        data=Data(name=draw(st.sampled_from(["mnist", "omniglot", "mine.npz"])), batch_size=draw(counts)),
        model=Model(
            k=draw(counts),
            latent_units=draw(st.lists(counts, min_size=layers, max_size=layers)),
            hidden_units=draw(st.lists(widths, min_size=layers, max_size=layers)),
        ),
        training=Training(
            learning_rate=draw(rates),
            beta_1=draw(st.floats(0, 1 - 1e-7)),
            stages=stages,
            epochs=limited,
            start_from=draw(st.none() | folder_names.map(lambda name: f"elsewhere/{name}")),
        ),
        evaluation=Evaluation(splits=draw(splits), examples=draw(st.none() | counts)),
    )


@settings(deadline=None)
@given(experiments())
def test_any_experiment_survives_json_and_dictionary(experiment: Experiment) -> None:
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    assert config.differences(experiment, config.from_dict(config.to_dict(experiment))) == []


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | st.decimals()
    | st.fractions()
    | st.sampled_from(["iwae", "mnist", "test", "train", "none", "burda", 1, 20, 0.5])
)
keys = st.text() | st.integers() | st.none() | st.sampled_from(list(config.to_dict(Experiment("run"))))
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=10,
)


def is_experiment_or_refused(values: Any) -> None:
    try:
        experiment = config.from_dict(values)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment


@settings(deadline=None)
@given(anything)
def test_anything_is_an_experiment_or_refused(values: Any) -> None:
    is_experiment_or_refused(values)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(list(config.flatten(Experiment("run")))), anything, min_size=1, max_size=3))
def test_an_experiment_with_anything_in_it_is_valid_or_refused(changes: dict) -> None:
    is_experiment_or_refused(changed(config.to_dict(Experiment("run")), changes))
