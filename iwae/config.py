"""The parameters of an experiment: frozen dataclasses that check themselves.

Every dataclass refuses a wrong value when it is made, with a `ConfigError` of one line that names the parameter by its
dotted path, what was expected and what was given:

    >>> Model(k=0)
    Traceback (most recent call last):
    iwae.config.ConfigError: model.k: expected an integer >= 1, got 0

What a single value may be is said once, in the annotation of its field; what two or more values must be together is
said by the functions `_rule_...`, one for each rule. The text below each field is also its `--help`.

This module needs the standard library only, so that a mistake is told before anything heavy is imported.
"""

import dataclasses
import difflib
import functools
import json
import math
import numbers
import os
import re
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

OBJECTIVES: dict[str, str] = {
    "vae": "mean of the k log weights, L_1 (Kingma & Welling 2014)",
    "vae_analytic_kl": "L_1 with the KL divergence in closed form, one stochastic layer",
    "iwae": "log of the mean of the k weights, L_k (Burda et al. 2016)",
    "renyi": "Renyi bound of order alpha (Li & Turner 2016)",
    "miwae": "mean of L_k over groups of k samples (Rainforth et al. 2018)",
    "piwae": "L_(groups * k) for the generative network, miwae for the recognition network (Rainforth et al. 2018)",
    "ciwae": "mixture * L_1 + (1 - mixture) * L_k (Rainforth et al. 2018)",
}
"""Name and one line about every objective; registering another one adds its name here."""

BUILT_IN_OBJECTIVES = frozenset(OBJECTIVES)

DATASETS: dict[str, str] = {
    "mnist": "28x28 handwritten digits, grey values",
    "binarized_mnist": "MNIST with the fixed binarization of Larochelle & Murray",
    "fashion_mnist": "28x28 pictures of clothes, grey values",
    "omniglot": "28x28 handwritten characters of 50 alphabets, grey values",
    "digits": "8x8 handwritten digits that come with scikit-learn, no download",
    "camel": "synthetic, 1-D: two clusters that overlap",
    "two_close_clusters": "synthetic, 1-D: another name of camel",
    "two_clusters": "synthetic, 1-D: two clusters apart",
    "linear2dim": "synthetic, 2-D: a noisy line",
    "simple_2_layers": "synthetic, 2-D: four clusters",
    "circle": "synthetic, 2-D: a noisy circle",
}
"""Name and one line about every dataset."""

SYNTHETIC_DATASETS = tuple(name for name, about in DATASETS.items() if about.startswith("synthetic"))

PAPER_NETWORKS: dict[int, dict[str, Any]] = {
    1: {"latent_units": (50,), "hidden_units": ((200, 200),)},
    2: {"latent_units": (100, 50), "hidden_units": ((200, 200), (100, 100))},
}
"""The sizes of the paper's networks by their number of stochastic layers, from the data upwards."""

INCIDENTAL = (
    "name", "tasks", "results_dir", "overwrite", "accept_changes", "data.path", "training.updates_per_call",
    "training.checkpoint_seconds",
)  # fmt: skip
"""Parameters that make no other run: they change where it lies, what is done with it or how fast, but no result."""

DEFAULT_CHANGES: dict[str, Any] = {"model.latent_units": (2,), "training.stages": 5}
"""The default experiment, `experiments.py` unedited, by what in it differs from the defaults below: a run of two
minutes with every picture. The names that runs are given say what differs from it."""


@dataclass(frozen=True)
class Task:
    """Something to do with a trained model beyond train, evaluate and plot."""

    about: str
    key: str
    """Key of evaluation.json, under "test", that is there once the task is done."""


TASKS: dict[str, Task] = {
    "posterior": Task("Hamiltonian Monte Carlo beside draws of q, for chosen inputs", "posterior"),
    "tightness": Task("annealed importance sampling beside L_k, and Pareto k-hat", "ais"),
    "snr": Task("signal-to-noise ratio of the gradients over k", "gradient_snr"),
}
"""What is not done unless asked for."""

INT32_MAX = 2**31 - 1
MAX_STAGES = 12
VAE_OBJECTIVES = ("vae", "vae_analytic_kl")


class ConfigError(ValueError):
    """A parameter that cannot be used; the message is one line that names it."""


@dataclass(frozen=True)
class Rule:
    """What one value must fulfil beyond its type: in words, after "expected", and as a predicate."""

    expected: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Belongs:
    """Said of a parameter of `Evaluation`: the only tasks that it changes."""

    tasks: tuple[str, ...]


class Unregistered(str):
    """The name of an objective whose code is not at hand: it can be read and told, but not trained."""


class MadeName(str):
    """A run's name that was made from its parameters; it is made anew when these are replaced."""


def _is_folder_name(name: str) -> bool:
    return (
        name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
        and name == name.strip(" ")
        and name.strip(".") != ""
        and len(name.encode()) <= 200
    )


def _is_dataset_name(name: str) -> bool:
    return name in DATASETS or (name.endswith(".npz") and "\0" not in name and os.path.basename(name) != ".npz")


Count = Annotated[int, Rule("an integer >= 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("an integer >= 0", lambda n: n >= 0)]
Positive = Annotated[float, Rule("a number > 0", lambda x: x > 0)]
NonNegative = Annotated[float, Rule("a number >= 0", lambda x: x >= 0)]
Fraction = Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Decay = Annotated[float, Rule("a number >= 0 and < 1", lambda x: 0 <= x < 1)]
Seed = Annotated[int, Rule(f"an integer from 0 to {INT32_MAX}", lambda n: n >= 0)]
Stages = Annotated[int, Rule(f"an integer from 1 to {MAX_STAGES}", lambda n: 1 <= n <= MAX_STAGES)]
RenyiOrder = Annotated[float, Rule("a number other than 1", lambda x: x != 1)]
FolderName = Annotated[str, Rule("a name that can be a folder's (no path, no special characters)", _is_folder_name)]
Path = Annotated[str, Rule("a path", lambda text: text.strip() != "" and "\0" not in text)]
DatasetName = Annotated[str, Rule(f"one of {', '.join(DATASETS)} or the path of an .npz file", _is_dataset_name)]
ObjectiveName = Annotated[
    str, Rule("the name of an objective", lambda name: name in OBJECTIVES or isinstance(name, Unregistered))
]

_Item = TypeVar("_Item")
Selection = Annotated[
    tuple[_Item, ...],
    Rule("a list of at least one item and no repeats", lambda items: 0 < len(items) == len(set(items))),
]


def _increases(items: tuple[int, ...]) -> bool:
    return all(a < b for a, b in zip(items, items[1:], strict=False))


Increasing = Annotated[tuple[Count, ...], Rule("a list of increasing integers", _increases)]
SomeIncreasing = Annotated[
    tuple[Count, ...],
    Rule("a list of at least one integer, increasing", lambda items: len(items) > 0 and _increases(items)),
]
TASK_NAMES = ("train", "evaluate", "plot", *TASKS)
TaskName = Annotated[str, Rule(f"one of {', '.join(TASK_NAMES)}", lambda name: name in TASK_NAMES)]
Split = Literal["train", "valid", "test"]


class _Section:
    """A frozen dataclass whose fields are checked, and converted where nothing is lost, when it is made."""

    _path: ClassVar[str] = ""
    _rules: ClassVar[tuple[Callable[[Any], None], ...]] = ()

    def __new__(cls, *_: Any, **values: Any) -> Any:
        _refuse_unknown_names(cls._path, values, cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        section: type = type(self)
        for name, annotation in _annotations(section).items():
            value = _convert(_join(self._path, name), getattr(self, name), annotation)
            object.__setattr__(self, name, value)
        for rule in self._rules:
            rule(self)


@dataclass(frozen=True)
class Data(_Section):
    """What the model is trained on."""

    name: DatasetName = "digits"
    """Dataset: mnist, binarized_mnist, fashion_mnist, omniglot, digits (no download), the synthetic camel,
    two_close_clusters, two_clusters, linear2dim, simple_2_layers, circle, or the path of an .npz with x_train and
    x_test. Paper: mnist, omniglot, and binarized_mnist in its appendix."""

    batch_size: Count = 20
    """Examples an update. Paper: 20."""

    binarization: Literal["stochastic", "fixed", "threshold", "none"] = "stochastic"
    """How grey values become binary pixels: drawn anew each time an image is used (stochastic), drawn once (fixed),
    cut at 1/2 (threshold), or left as they are (none; what is continuous or binary already). Paper: stochastic."""

    path: Path | None = None
    """Folder of the downloaded datasets. None: the environment variable IWAE_DATA_DIR, else the cache folder of the
    operating system."""

    synthetic_examples: Annotated[int, Rule("an integer >= 10", lambda n: n >= 10)] = 10_000
    """Training examples drawn for a synthetic dataset."""

    _path: ClassVar[str] = "data"


def _rule_one_hidden_list_per_latent_layer(model: "Model") -> None:
    if len(model.hidden_units) != len(model.latent_units):
        raise ConfigError(
            f"model.hidden_units: expected as many lists of units as model.latent_units has entries, "
            f"{len(model.latent_units)}, got {len(model.hidden_units)}: {shown(_plain(model.hidden_units))}"
        )


def _rule_estimator_fits_objective(model: "Model") -> None:
    allowed = {"reparameterized": None, "sticking_the_landing": ("vae", "iwae")}.get(model.estimator, ("iwae",))
    if allowed is not None and model.objective not in allowed:
        raise ConfigError(
            f"model.estimator: expected 'reparameterized' with model.objective {model.objective!r} "
            f"({model.estimator!r} needs {_either(allowed)}), got {model.estimator!r}"
        )


def _rule_one_layer_only(model: "Model") -> None:
    if model.objective == "vae_analytic_kl" and len(model.latent_units) > 1:
        raise ConfigError(
            f"model.objective: expected a choice that works with {len(model.latent_units)} stochastic layers, "
            f"got {model.objective!r}, which needs one"
        )


def _rule_parameters_of_other_objectives(model: "Model") -> None:
    """A parameter that the chosen objective ignores must keep its default: setting it would change nothing."""
    owners = {
        "alpha": ("renyi",),
        "groups": ("miwae", "piwae"),
        "mixture": ("ciwae",),
        "beta": VAE_OBJECTIVES,
        "beta_warmup_epochs": VAE_OBJECTIVES,
    }
    for name, objectives in owners.items():
        default = Model.__dataclass_fields__[name].default
        value = getattr(model, name)
        if model.objective in BUILT_IN_OBJECTIVES.difference(objectives) and value != default:
            raise ConfigError(
                f"model.{name}: expected {default} with model.objective {model.objective!r} "
                f"(it belongs to {_either(objectives)}), got {value}"
            )


@dataclass(frozen=True)
class Model(_Section):
    """The network and what is maximized."""

    objective: ObjectiveName = "iwae"
    """Bound that is maximized: vae, vae_analytic_kl, iwae, renyi, miwae, piwae, ciwae, or a registered one.
    Paper: vae and iwae."""

    k: Count = 50
    """Importance samples an example in training. Paper: 1, 5, 50."""

    latent_units: Annotated[
        tuple[Count, ...], Rule("a list of at least one integer >= 1", lambda units: len(units) > 0)
    ] = (50,)
    """Units of each stochastic layer, from the data upwards. Paper: 50, or 100 50 for two layers."""

    hidden_units: tuple[tuple[Count, ...], ...] = ((200, 200),)
    """Tanh units of the deterministic layers below each stochastic layer, from the data upwards; the generative network
    mirrors them. Paper: 200,200, or 200,200 100,100 for two layers."""

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Distribution of the data given the lowest stochastic layer: binary pixels or real numbers. Paper: bernoulli."""

    estimator: Literal["reparameterized", "sampled", "sticking_the_landing", "dreg"] = "reparameterized"
    """Estimator of the gradient: all k samples (reparameterized), one sample drawn by its weight (sampled: cheaper,
    more variance; end of section 3 of the paper), without the score term (sticking_the_landing, Roeder et al. 2017),
    doubly reparameterized (dreg, Tucker et al. 2018). Paper: reparameterized."""

    alpha: RenyiOrder = 0.5
    """Order of the Renyi bound; objective renyi only. Not in the paper (0 is its IWAE)."""

    groups: Count = 1
    """Groups of k samples each; objectives miwae and piwae only. Not in the paper (1 is its IWAE)."""

    mixture: Fraction = 0.5
    """Weight of L_1 beside L_k, 0 to 1; objective ciwae only. Not in the paper (0 is its IWAE)."""

    beta: NonNegative = 1.0
    """Weight of the KL divergence; vae objectives only. Paper: 1."""

    beta_warmup_epochs: CountOrZero = 0
    """Epochs over which that weight rises from 0 to beta; vae objectives only. Paper: 0."""

    _path: ClassVar[str] = "model"
    _rules: ClassVar = (
        _rule_one_hidden_list_per_latent_layer,
        _rule_estimator_fits_objective,
        _rule_one_layer_only,
        _rule_parameters_of_other_objectives,
    )


def _rule_schedule_has_its_epochs(training: "Training") -> None:
    if training.schedule == "burda":
        passes = (3**training.stages - 1) // 2
        if training.epochs is not None and training.epochs > passes:
            raise ConfigError(
                f"training.epochs: expected at most {passes}, the epochs of {training.stages} stages of schedule "
                f"'burda', or None, got {training.epochs}"
            )
    elif training.epochs is None:
        raise ConfigError(
            f"training.epochs: expected an integer >= 1 with training.schedule {training.schedule!r}, got None"
        )


def _rule_warmup_belongs_to_cosine(training: "Training") -> None:
    if training.schedule != "cosine" and training.warmup_epochs:
        raise ConfigError(
            f"training.warmup_epochs: expected 0 with training.schedule {training.schedule!r} (it belongs to "
            f"'cosine'), got {training.warmup_epochs}"
        )
    if training.schedule == "cosine" and training.epochs is not None and training.warmup_epochs >= training.epochs:
        raise ConfigError(
            f"training.warmup_epochs: expected fewer than the {training.epochs} of training.epochs, "
            f"got {training.warmup_epochs}"
        )


def _rule_milestones_belong_to_multistep(training: "Training") -> None:
    if training.schedule == "multistep" and not training.milestones:
        raise ConfigError("training.milestones: expected at least one epoch with training.schedule 'multistep', got []")
    if training.schedule != "multistep" and training.milestones:
        raise ConfigError(
            f"training.milestones: expected none with training.schedule {training.schedule!r} (they belong to "
            f"'multistep'), got {list(training.milestones)}"
        )


@dataclass(frozen=True)
class Training(_Section):
    """Optimizer, schedule and when to stop."""

    learning_rate: Positive = 1e-3
    """Learning rate of the first epoch. Paper: 0.001."""

    beta_1: Decay = 0.9
    """Adam: decay of the first moment. Paper: 0.9."""

    beta_2: Decay = 0.999
    """Adam: decay of the second moment. Paper: 0.999."""

    epsilon: Positive = 1e-4
    """Adam: added to the root of the second moment. Paper: 0.0001."""

    schedule: Literal["burda", "cosine", "constant", "multistep"] = "burda"
    """Learning rate over the epochs: stages i = 0, 1, ... of 3^i epochs at learning_rate * 10^(-i/7) (burda), half a
    cosine that ends at zero with the last update (cosine), constant, or times gamma after each milestone (multistep).
    Paper: burda."""

    stages: Stages = 8
    """Stages of schedule burda; n stages are (3^n - 1) / 2 epochs. Paper: 8, which are 3280 epochs."""

    epochs: Count | None = None
    """Passes over the training examples. None, for schedule burda only: all epochs of its stages; a number stops it
    after so many. Paper: 3280."""

    warmup_epochs: CountOrZero = 0
    """Schedule cosine: epochs over which the learning rate first rises from zero."""

    milestones: Increasing = ()
    """Schedule multistep: epochs after which the learning rate is multiplied by gamma, increasing."""

    gamma: Positive = 0.1
    """Schedule multistep: factor of the learning rate at each milestone."""

    early_stopping_patience: Count | None = None
    """Epochs without a better bound on the validation examples after which training stops and the best weights are
    kept. None: never. Paper: None."""

    early_stopping_threshold: NonNegative = 0.0
    """Nats by which the validation bound must rise to count as better."""

    start_from: Path | None = None
    """Folder of a finished run (results/NAME) whose weights training starts from. None: new weights. Paper: a finished
    run in table 2, else None."""

    updates_per_call: Count = 100
    """Updates in one call of the compiled loop. Changes speed and how often the progress bar moves, no result."""

    checkpoint_seconds: Positive = 60.0
    """Seconds between checkpoints inside an epoch. Changes what an interruption costs, no result."""

    _path: ClassVar[str] = "training"
    _rules: ClassVar = (
        _rule_schedule_has_its_epochs,
        _rule_warmup_belongs_to_cosine,
        _rule_milestones_belong_to_multistep,
    )


@dataclass(frozen=True)
class Evaluation(_Section):
    """What is measured after training."""

    k: Count = 5000
    """Importance samples an example of the reported likelihood L_k. Paper: 5000."""

    splits: Selection[Split] = ("test",)
    """Parts of the dataset that are evaluated: train, valid, test. Paper: test."""

    examples: Count | None = None
    """Examples of each split that are evaluated, spread evenly over it. None: all. Paper: all."""

    active_unit_threshold: NonNegative = 0.01
    """A latent unit is active if the variance of its posterior mean over the examples is above this. Paper: 0.01."""

    remove_inactive_units: bool = True
    """Measure the likelihood also with the inactive units removed from the model. Paper: yes."""

    posterior_inputs: Annotated[tuple[CountOrZero, ...], Belongs(("plot", "posterior"))] = ()
    """Tasks plot and posterior: numbers of the test examples whose posterior is shown, counted from 0. Empty: the
    first of each class, or ten spread evenly where there are no labels. Not in the paper."""

    tightness_examples: Annotated[Count, Belongs(("tightness",))] = 100
    """Task tightness: examples, spread evenly over each split. Not in the paper (Wu et al. 2017: 100)."""

    ais_steps: Annotated[Count, Belongs(("tightness",))] = 500
    """Task tightness: temperatures of annealed importance sampling. Not in the paper (Wu et al. 2017: 10000)."""

    ais_chains: Annotated[Count, Belongs(("tightness",))] = 16
    """Task tightness: chains an example of annealed importance sampling. Not in the paper (Wu et al. 2017: 16)."""

    snr_k: Annotated[SomeIncreasing, Belongs(("snr",))] = (1, 3, 10, 30, 100, 300, 1000)
    """Task snr: numbers of importance samples for which the gradients are compared. Not in the paper."""

    snr_samples: Annotated[Count, Belongs(("snr",))] = 30_000
    """Task snr: importance samples an example drawn for each of these numbers; a gradient takes k of them. Not in the
    paper."""

    _path: ClassVar[str] = "evaluation"


def _rule_likelihood_fits_data(experiment: "Experiment") -> None:
    name, binarization = experiment.data.name, experiment.data.binarization
    continuous = name in SYNTHETIC_DATASETS
    if continuous and experiment.model.likelihood != "gaussian":
        raise ConfigError(
            f"model.likelihood: expected 'gaussian' with the real numbers of data.name {name!r}, "
            f"got {experiment.model.likelihood!r}"
        )
    if (continuous or experiment.model.likelihood == "gaussian") and binarization != "none":
        raise ConfigError(f"data.binarization: expected 'none' with model.likelihood 'gaussian', got {binarization!r}")


def _rule_no_start_from_itself(experiment: "Experiment") -> None:
    start = experiment.training.start_from
    if start is not None and os.path.normpath(start) == os.path.normpath(experiment.run_dir):
        raise ConfigError(f"training.start_from: expected the folder of another run, got {start!r}, this run's own")


@dataclass(frozen=True)
class Experiment(_Section):
    """One run: what it is called, what is done, and the four groups of parameters."""

    name: FolderName = None  # type: ignore[assignment]
    """Name of the run; its files lie in results_dir/name. None: made from dataset, objective, k and what else differs
    from the default experiment."""

    seed: Seed = 123
    """Seed of everything random: the same seed gives the same run. Not stated in the paper."""

    tasks: Selection[TaskName] = ("train", "evaluate", "plot")
    """What is done, in this order: train, evaluate, plot, and what is not done unless asked for: posterior (Hamiltonian
    Monte Carlo beside draws of q, for chosen inputs), tightness (annealed importance sampling beside L_k, and Pareto
    k-hat), snr (signal-to-noise ratio of the gradients over k)."""

    results_dir: Path = "results"
    """Folder that holds the folders of the runs."""

    overwrite: bool = False
    """Start afresh where a run of this name exists; its files are deleted."""

    accept_changes: bool = False
    """Continue an unfinished run of this name although parameters of training differ, such as its learning rate; the
    change is noted in experiment.json."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)

    _rules: ClassVar = (_rule_likelihood_fits_data, _rule_no_start_from_itself)

    def __post_init__(self) -> None:
        made = self.name is None or isinstance(self.name, MadeName)
        if made:
            object.__setattr__(self, "name", "made below")
        super().__post_init__()
        if made:
            object.__setattr__(self, "name", MadeName(_made_name(self)))

    @property
    def run_dir(self) -> str:
        """Folder of the run's files."""
        return os.path.join(self.results_dir, self.name)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """The parameters as nested dictionaries, lists and plain values, as JSON has them."""
    return _plain(dataclasses.asdict(experiment))


def from_dict(values: Mapping[str, Any], *, any_objective: bool = False) -> Experiment:
    """The inverse of `to_dict`.

    Args:
        values: a value for every parameter; None for the name that is made from the others.
        any_objective: accept an objective that is not registered here, as an `Unregistered` name.

    Raises:
        ConfigError: for a key that is unknown or missing and for a value that is refused.
    """
    model = values.get("model") if isinstance(values, Mapping) else None
    objective = model.get("objective") if isinstance(model, Mapping) else None
    if any_objective and isinstance(objective, str) and objective not in OBJECTIVES:
        values = {**values, "model": {**model, "objective": Unregistered(objective)}}  # type: ignore[dict-item]
    return _from_mapping("", values, Experiment)


def to_json(experiment: Experiment) -> str:
    """The parameters as JSON text, indented, without loss."""
    return json.dumps(to_dict(experiment), indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> Experiment:
    """The inverse of `to_json`.

    Raises:
        ConfigError: for text that is not JSON, and as `from_dict`.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"experiment: expected JSON text, got {shown(text)} ({error})") from None
    return from_dict(values)


def replace(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """`experiment` with other values for the parameters named in `changes`, as in `{"seed": 7, "model.k": 5}`.

    Raises:
        ConfigError: for a name that is no parameter's and for a value that is refused.
    """
    values = to_dict(experiment)
    known = flatten(experiment)
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(
                f"{name}: expected the name of a parameter, got an unknown one{did_you_mean(name, known)}"
            )
        *section, last = name.split(".")
        (values[section[0]] if section else values)[last] = value
    return from_dict(values)


def flatten(experiment: Experiment) -> dict[str, Any]:
    """Every parameter by its dotted name, as in `{"seed": 123, "data.name": "digits", ...}`."""
    flat: dict[str, Any] = {}
    for name in _annotations(Experiment):
        value = getattr(experiment, name)
        if isinstance(value, _Section):
            section: type = type(value)
            flat |= {_join(name, inner): getattr(value, inner) for inner in _annotations(section)}
        else:
            flat[name] = value
    return flat


def differences(a: Experiment, b: Experiment) -> list[tuple[str, Any, Any]]:
    """The parameters in which two experiments differ: dotted name, value in `a`, value in `b`."""
    in_b = flatten(b)
    return [(name, value, in_b[name]) for name, value in flatten(a).items() if value != in_b[name]]


def written(value: Any) -> str:
    """`value` as it is written on the command line: `0.5`, `100,50`, `200,200 100,100`, `none` for an empty list."""
    if not isinstance(value, list | tuple):
        return str(value)
    nested = any(isinstance(item, list | tuple) for item in value)
    return (" " if nested else ",").join(map(written, value)) or "none"


def label(name: str, value: Any) -> str:
    """A parameter and its value as a part of a run's name: `k5`, `objective-vae`, `latent_units100-50`."""
    section, _, last = name.rpartition(".")
    if name == "data.name":
        last = "data"
    elif section in ("data", "evaluation"):
        last = f"{section}_{last}"
    text = _name_part(name, value)
    return last + text if text[0].isdigit() else f"{last}-{text}"


def ending(experiment: Experiment, parameters: Iterable[str]) -> str:
    """The end of a run's name that says what these parameters are, the seed last."""
    values, wanted = flatten(experiment), set(parameters)
    order = sorted(wanted, key=lambda name: (name == "seed", list(values).index(name)))
    return "".join(f"_{label(name, values[name])}" for name in order)


def in_a_name(parameter: str) -> bool:
    """Whether a change in a parameter makes another run, which the names that runs are given therefore say."""
    return parameter not in INCIDENTAL and not parameter.startswith("evaluation.")


def _made_name(experiment: Experiment) -> str:
    values = flatten(experiment)
    main = {name: _name_part(name, values[name]) for name in ("data.name", "model.objective", "model.k")}
    default = {name: entry for name, entry in _defaults().items() if name not in main and in_a_name(name)}
    changed = ending(experiment, {name for name in default if values[name] != default[name]})
    name = "{}_{}_k{}".format(*main.values()) + changed
    return name if len(name) <= 150 else f"{name[:140]}_{zlib.crc32(name.encode()):08x}"


def _name_part(name: str, value: Any) -> str:
    text = os.path.basename(value).removesuffix(".npz") if name == "data.name" else written(value)
    return re.sub(r"[^A-Za-z0-9_.+]+", "-", text.replace(" ", "_"))


@functools.cache
def _defaults() -> dict[str, Any]:
    """Every parameter of the default experiment but its name."""
    return flatten(Experiment("default")) | DEFAULT_CHANGES


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: ` (did you mean 'x'?)`, or nothing if no known word is near."""
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f" (did you mean {by_lower_case[near[0]]!r}?)" if near else ""


def shown(value: Any) -> str:
    """`repr(value)` in one line of at most 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a value whose repr fails must still be refused in one line
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _from_mapping(path: str, values: Any, section: type) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'experiment'}: expected named parameters (a dictionary), got {shown(values)}")
    _refuse_unknown_names(path, values, section)
    arguments = {}
    for name, annotation in _annotations(section).items():
        if name not in values:
            raise ConfigError(f"{_join(path, name)}: expected a value, got none (the parameter is missing)")
        value = values[name]
        is_section = isinstance(annotation, type) and issubclass(annotation, _Section)
        arguments[name] = _from_mapping(_join(path, name), value, annotation) if is_section else value
    return section(**arguments)


def _refuse_unknown_names(path: str, values: Mapping[str, Any], section: type) -> None:
    known = _annotations(section)
    for key in values:
        if not isinstance(key, str) or key not in known:
            near = did_you_mean(key, known) if isinstance(key, str) else ""
            name = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ConfigError(f"{_join(path, name)}: expected the name of a parameter, got an unknown one{near}")


@functools.cache
def _annotations(section: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(section)}


def _convert(path: str, value: Any, annotation: Any, rule: Rule | None = None, optional: bool = False) -> Any:
    """`value` as the type of `annotation`: integers as floats, lists as tuples, NumPy numbers as Python's.

    Raises:
        ConfigError: if that would lose anything, or if the rule of the annotation does not hold.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(path, value, arguments[0], rule, optional=True)
    if origin is Annotated:
        inner = arguments[1] if isinstance(arguments[1], Rule) else rule
        return _convert(path, value, arguments[0], inner, optional)

    refusal = _refusal(path, value, annotation, rule, optional)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise refusal
        converted: Any = tuple(_convert(f"{path}[{i}]", item, arguments[0]) for i, item in enumerate(value))
    elif origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise refusal
        converted = value
    elif annotation is int:
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or abs(int(value)) > INT32_MAX:
            raise refusal
        converted = int(value)
    elif annotation is float:
        converted = _finite(value)
        if converted is None:
            raise refusal
    elif not isinstance(value, annotation):
        raise refusal
    else:
        converted = value
    if rule is not None and not rule.holds(converted):
        raise refusal
    return converted


def _finite(value: Any) -> float | None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


_TYPE_NAMES = {int: "an integer", float: "a finite number", bool: "True or False", str: "a string"}


def _refusal(path: str, value: Any, annotation: Any, rule: Rule | None, optional: bool) -> ConfigError:
    near = ""
    if typing.get_origin(annotation) is Literal:
        choices: Iterable[str] = typing.get_args(annotation)
        expected = f"one of {', '.join(choices)}"
    elif rule is not None and rule is typing.get_args(ObjectiveName)[1]:
        choices = OBJECTIVES
        expected = f"one of {', '.join(choices)}"
    else:
        choices = DATASETS if rule is typing.get_args(DatasetName)[1] else ()
        choices = TASK_NAMES if rule is typing.get_args(TaskName)[1] else choices
        expected = rule.expected if rule else _TYPE_NAMES.get(annotation) or _describe(annotation)
    if isinstance(value, str):
        near = did_you_mean(value, choices)
    if annotation is int and isinstance(value, numbers.Integral) and abs(int(value)) > INT32_MAX:
        near = f" (the largest is {INT32_MAX})"
    elif annotation is float and isinstance(value, float) and not math.isfinite(value):
        near = " (it must be finite)"
    return ConfigError(f"{path}: expected {expected}{' or None' if optional else ''}, got {shown(value)}{near}")


def _describe(annotation: Any) -> str:
    if typing.get_origin(annotation) is tuple:
        return "a list of lists of integers" if typing.get_origin(typing.get_args(annotation)[0]) is tuple else "a list"
    return f"parameters of the class {annotation.__name__}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)


TASK_PARAMETERS: dict[str, tuple[str, ...]] = {
    f"evaluation.{name}": entry.tasks
    for name, annotation in _annotations(Evaluation).items()
    for entry in getattr(annotation, "__metadata__", ())
    if isinstance(entry, Belongs)
}
"""The tasks that a parameter changes, for those that change some tasks only."""
