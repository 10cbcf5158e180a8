"""The parameters of an experiment, and what they must be: each alone, and two or more together.

    >>> Model(k=0)
    Traceback (most recent call last):
    iwae.sections.ConfigError: model.k: expected an integer >= 1, got 0

The text below each field is also its `--help`. The standard library only, so that a mistake is told before anything
heavy is imported.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from iwae.data.catalogue import ARRAYS, CATALOGUE

from iwae.sections import (  # isort: skip
    ConfigError, Count, CountOrZero, Decay, FolderName, Fraction, Increasing, LearningRate, MadeName, NonNegative, Path,
    Positive, Rule, Section, Seed, Selection, SomeIncreasing, Unregistered, data_name, differences, either, expanded,
    flatten, from_mapping, kinds, name_ending, name_part, plain, shown,
)  # fmt: skip
from iwae.sections import replace as replace  # these two are looked for here
from iwae.sections import written as written

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

DATASETS = {name: entry.about for name, entry in CATALOGUE.items()}
"""Name and one line about every dataset."""

SYNTHETIC_DATASETS = tuple(name for name, entry in CATALOGUE.items() if entry.synthetic)

PAPER_NETWORKS: dict[int, dict[str, Any]] = {
    1: {"latent_units": (50,), "hidden_units": ((200, 200),)},
    2: {"latent_units": (100, 50), "hidden_units": ((200, 200), (100, 100))},
}
"""The sizes of the paper's networks by their number of stochastic layers, from the data upwards."""


def fast_protocol(k: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of model and training, beside the paper's: table 1 with an eighth of the passes or fewer
    (docs/protocol.md says how they were found)."""
    training: dict[str, Any] = {"optimizer": "rotated_adam", "learning_rate": 2e-3, "epsilon": 1e-8}
    training |= {"schedule": "cosine", "epochs": {1: 400, 5: 300}.get(k, 200)}
    if k > 5:
        training |= {"first_k": 5, "first_k_epochs": 150}
    return {"estimator": "dreg"}, training


INCIDENTAL = (
    "name", "tasks", "results_dir", "overwrite", "accept_changes", "data.path", "training.updates_per_call",
    "training.checkpoint_seconds",
)  # fmt: skip
"""Parameters that make no other run: they change where it lies, what is done with it or how fast, but no result."""


@dataclass(frozen=True)
class Task:
    """Done only if asked for: a line about it; the key under "test" in evaluation.json that is there once done."""

    about: str
    key: str


TASKS: dict[str, Task] = {
    "posterior": Task("Hamiltonian Monte Carlo beside draws of q, for chosen inputs", "posterior"),
    "tightness": Task("annealed importance sampling beside L_k, and Pareto k-hat", "ais"),
    "snr": Task("signal-to-noise ratio of the gradients over k", "gradient_snr"),
}
TASK_NAMES = ("train", "evaluate", "plot", *TASKS)
MAX_STAGES = 12
VAE_OBJECTIVES = ("vae", "vae_analytic_kl")


class Belongs(tuple[str, ...]):
    """Said of a parameter of `Evaluation`: only these tasks depend on it."""


def _is_dataset_name(name: str) -> bool:
    own = (name.endswith((".npz", ".csv")) or "/" in name) and data_name(name) != ""
    return name in DATASETS or name == ARRAYS or (own and "\0" not in name and not name.startswith("~"))


_OF_ONES_OWN = " (one of your own: import the file that registers it)"
Stages = Annotated[int, Rule(f"an integer from 1 to {MAX_STAGES}", lambda n: 1 <= n <= MAX_STAGES)]
RenyiOrder = Annotated[float, Rule("a number other than 1", lambda x: x != 1, float32=False)]
USERS_OWN = "the path of an .npz file, a .csv file or a folder of images (FOLDER/)"
DatasetName = Annotated[str, Rule(f"one of {', '.join(DATASETS)} or {USERS_OWN}", _is_dataset_name, DATASETS, expanded)]
ObjectiveName = Annotated[
    str, Rule("", lambda name: name in OBJECTIVES or isinstance(name, Unregistered), OBJECTIVES, hint=_OF_ONES_OWN)
]
TaskName = Annotated[str, Rule(holds=lambda name: name in TASK_NAMES, choices=TASK_NAMES)]
Units = Annotated[tuple[Count, ...], Rule("a list of at least one integer >= 1", lambda units: len(units) > 0)]
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Data(Section):
    """What the model is trained on."""

    name: DatasetName = "digits"
    """Dataset, or the path of an .npz with x_train and x_test, of a .csv, or of a folder of images (FOLDER/). Digits
    and the synthetic ones need no download. Paper: mnist, omniglot, and binarized_mnist in its appendix."""

    batch_size: Count = 20
    """Examples an update. Paper: 20."""

    binarization: Literal["stochastic", "fixed", "threshold", "none"] = "stochastic"
    """How grey values become binary pixels: drawn anew each time an image is used (stochastic), drawn once (fixed), cut
    at 1/2 (threshold), or left as they are (none; what is continuous, 8-bit or binary already). Paper: stochastic."""

    path: Path | None = None
    """Folder of the downloaded datasets. None: the environment variable IWAE_DATA_DIR, else the cache folder of the
    operating system."""

    synthetic_examples: Annotated[int, Rule("an integer >= 10", lambda n: n >= 10)] = 10_000
    """Training examples drawn for a synthetic dataset."""

    _path: ClassVar[str] = "data"


def _rule_sizes_match(model: "Model") -> None:
    if len(model.hidden_units) != len(model.latent_units):
        expected = f"as many lists of units as model.latent_units has entries, {len(model.latent_units)}"
        given = f"{len(model.hidden_units)}: {shown(plain(model.hidden_units))}"
        raise ConfigError(f"model.hidden_units: expected {expected}, got {given}")


def _rule_estimator_fits(model: "Model") -> None:
    """What a user's own objective needs is checked when the model is made."""
    closed_form = model.objective == "vae_analytic_kl"
    needs = {"sampled": ("iwae",), "sticking_the_landing": ("vae", "iwae")}.get(model.estimator)
    if (needs and model.objective not in needs) or (model.estimator == "dreg" and closed_form):
        why = f"({model.estimator!r} needs {either(needs) if needs else 'any other'})"
        model.refuse("estimator", f"'reparameterized' with model.objective {model.objective!r} {why}")


def _rule_one_layer_only(model: "Model") -> None:
    if model.objective == "vae_analytic_kl" and len(model.latent_units) > 1:
        expected = f"a choice that works with {len(model.latent_units)} stochastic layers"
        raise ConfigError(f"model.objective: expected {expected}, got {model.objective!r}, which needs one")


def _rule_of_other_objectives(model: "Model") -> None:
    owners = {"alpha": ("renyi",), "groups": ("miwae", "piwae"), "mixture": ("ciwae",)}
    for name, objectives in (owners | dict.fromkeys(("beta", "beta_warmup_epochs"), VAE_OBJECTIVES)).items():
        if model.objective in BUILT_IN_OBJECTIVES.difference(objectives):
            model.keeps_default(name, f"with model.objective {model.objective!r} (it belongs to {either(objectives)})")


NETWORK_OF = {"channels": "conv", "couplings": "flow"}  # parameters of one kind of network


def _rule_of_other_networks(model: "Model") -> None:
    for name, owner in NETWORK_OF.items():
        if model.network != owner:
            model.keeps_default(name, f"with model.network {model.network!r} (it belongs to {owner!r})")
    if model.network == "flow" and model.objective == "vae_analytic_kl":
        model.refuse("objective", "'vae' with model.network 'flow', whose posterior is no Gaussian")


def _rule_condition(model: "Model") -> None:
    if model.condition == "none":
        model.keeps_default("prior", "with model.condition 'none'")
    if model.prior != "standard" and model.objective == "vae_analytic_kl":
        model.refuse("prior", f"'standard' with model.objective {model.objective!r}")


@dataclass(frozen=True)
class Model(Section):
    """The network and what is maximized."""

    objective: ObjectiveName = "iwae"
    """Bound that is maximized: vae, vae_analytic_kl, iwae, renyi, miwae, piwae, ciwae, or a registered one.
    Paper: vae and iwae."""

    k: Count = 50
    """Importance samples an example in training. Paper: 1, 5, 50."""

    latent_units: Units = (50,)
    """Units of each stochastic layer, from the data upwards. Paper: 50, or 100 50 for two layers."""

    hidden_units: Annotated[tuple[tuple[Count, ...], ...], Rule("a list of lists of integers")] = ((200, 200),)
    """Tanh units of the deterministic layers below each stochastic layer, from the data upwards; the generative network
    mirrors them. Paper: 200,200, or 200,200 100,100 for two layers."""

    network: Literal["mlp", "conv", "flow"] = "mlp"
    """Dense layers (mlp), for images convolutions below them (conv), or dense layers and in every stochastic layer a
    posterior q that splines bend, so that it is no Gaussian (flow, Durkan et al. 2019). Paper: mlp."""

    channels: Units = (32, 64)
    """Network conv: channels of its convolutions, each of which halves the sides of the image, from the data upwards.
    Not in the paper."""

    couplings: Count = 4
    """Network flow: couplings that bend the posterior of each stochastic layer. Not in the paper."""

    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"] = "bernoulli"
    """Distribution of the data given the lowest stochastic layer: binary pixels, real numbers, or 8-bit values
    (discretized_logistic, Salimans et al. 2017). Paper: bernoulli."""

    condition: Literal["none", "labels"] = "none"
    """What encoder and decoder are told beside their inputs: nothing, or the class, so that the model is p(x | y)
    (labels). Paper: none."""

    prior: Literal["standard", "labels"] = "standard"
    """Prior of the highest stochastic layer: N(0, I), or with condition labels a Gaussian of its own for each class
    (labels). Paper: standard."""

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
        _rule_sizes_match, _rule_estimator_fits, _rule_one_layer_only, _rule_of_other_objectives,
        _rule_of_other_networks, _rule_condition,
    )  # fmt: skip


def _rule_of_other_schedules(training: "Training") -> None:
    for name, owner in {"warmup_epochs": "cosine", "milestones": "multistep", "gamma": "multistep"}.items():
        if training.schedule != owner:
            training.keeps_default(name, f"with training.schedule {training.schedule!r} (it belongs to {owner!r})")
    if training.early_stopping_patience is None:
        training.keeps_default("early_stopping_threshold", "without training.early_stopping_patience")


def _rule_first_k_has_epochs(training: "Training") -> None:
    if (training.first_k is None) != (training.first_k_epochs == 0):
        training.refuse("first_k_epochs", "an integer >= 1 with training.first_k, and 0 without it")


def _rule_epochs_fit_schedule(training: "Training") -> None:
    schedule, epochs, passes = training.schedule, training.epochs, (3**training.stages - 1) // 2
    if schedule != "burda" and epochs is None:
        training.refuse("epochs", f"an integer >= 1 with training.schedule {schedule!r}")
    if schedule == "burda" and epochs is not None and epochs > passes:
        most = f"at most {passes}, the epochs of {training.stages} stages of schedule 'burda', or None"
        training.refuse("epochs", most)
    if schedule == "cosine" and epochs is not None and training.warmup_epochs >= epochs:
        training.refuse("warmup_epochs", f"fewer than the {epochs} of training.epochs")
    if schedule == "multistep" and not training.milestones:
        training.refuse("milestones", "at least one epoch with training.schedule 'multistep'")


@dataclass(frozen=True)
class Training(Section):
    """Optimizer, schedule and when to stop."""

    optimizer: Literal["adam", "rotated_adam"] = "adam"
    """Adam, or Adam on the inputs of each layer centred and turned to their principal axes: fewer passes to the same
    bound, a little more time an update. Paper: adam."""

    learning_rate: LearningRate = 1e-3
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

    first_k: Count | None = None
    """Importance samples an example in the first epochs, where fewer serve as well and cost less. None: model.k
    throughout. Not in the paper."""

    first_k_epochs: CountOrZero = 0
    """Epochs with first_k."""

    milestones: Increasing = ()
    """Schedule multistep: epochs after which the learning rate is multiplied by gamma, increasing."""

    gamma: Positive = 0.1
    """Schedule multistep: factor of the learning rate at each milestone."""

    early_stopping_patience: Count | None = None
    """Epochs without a better bound on the validation examples after which training stops and the best weights are
    kept. None: never. Paper: None."""

    early_stopping_threshold: NonNegative = 0.0
    """Nats by which the validation bound must rise to count as better."""

    shares: Count = 1
    """Parts of each batch, all of one size, that several devices can work on at once (--devices); the last bits of
    results depend on their number. Not in the paper."""

    tf32: bool = False
    """On a GPU: products of matrices and convolutions in the updates with factors rounded to 11 bits (TF32), which are
    faster; evaluations stay in full float32. On a CPU of no effect. Not in the paper."""

    start_from: Path | None = None
    """Folder of a finished run (results/NAME) whose weights training starts from. None: new weights. Paper: a finished
    run in table 2, else None."""

    updates_per_call: Count = 100
    """Updates in one call of the compiled loop; up to half more where an epoch is then whole calls. Changes speed and
    how often the progress bar moves, no result."""

    checkpoint_seconds: Positive = 60.0
    """Seconds between checkpoints inside an epoch. Changes what an interruption costs, no result."""

    _path: ClassVar[str] = "training"
    _rules: ClassVar = (_rule_of_other_schedules, _rule_first_k_has_epochs, _rule_epochs_fit_schedule)

    @property
    def passes(self) -> int:
        """Passes over the data: `epochs`, or all of the paper's stages."""
        return self.epochs if self.epochs is not None else (3**self.stages - 1) // 2

    def check_devices(self, devices: int, processes: int = 1) -> None:
        """Raises ConfigError if the shares cannot be dealt out evenly to so many devices of each process."""
        if not isinstance(devices, int) or devices < 1 or self.shares % devices:
            raise ConfigError(f"devices: expected a divisor of training.shares, {self.shares}, got {shown(devices)}")
        if self.shares % (devices * processes):
            what = f"{devices * processes}, the devices of the {processes} processes that TF_CONFIG names"
            self.refuse("shares", f"a multiple of {what}")


@dataclass(frozen=True)
class Evaluation(Section):
    """What is measured after training."""

    k: Annotated[Count, Belongs(("evaluate", "tightness"))] = 5000
    """Importance samples an example of the reported likelihood L_k. Paper: 5000."""

    splits: Annotated[Selection[Split], Belongs(("evaluate",))] = ("test",)
    """Parts of the dataset that are evaluated: train, valid, test. Paper: test."""

    examples: Annotated[Count | None, Belongs(("evaluate",))] = None
    """Examples of each split that are evaluated, spread evenly over it. None: all. Paper: all."""

    active_unit_threshold: Annotated[Positive, Belongs(("evaluate", "plot"))] = 0.01
    """A latent unit is active if the variance of its posterior mean over the examples is above this. Paper: 0.01."""

    remove_inactive_units: Annotated[bool, Belongs(("evaluate",))] = True
    """Measure the likelihood also with the inactive units removed from the model. Paper: yes."""

    posterior_inputs: Annotated[tuple[CountOrZero, ...], Belongs(("plot", "posterior", "snr"))] = ()
    """Tasks plot, posterior and snr: numbers of the test examples that are looked at, counted from 0. Empty: the first
    of each class, or ten spread evenly where there are no labels. Not in the paper."""

    tightness_examples: Annotated[Count, Belongs(("tightness",))] = 100
    """Task tightness: test examples, spread evenly. Not in the paper (Wu et al. 2017: 100)."""

    ais_steps: Annotated[Count, Belongs(("tightness", "posterior"))] = 500
    """Tasks tightness and posterior: temperatures of annealed importance sampling. Not in the paper (Wu et al. 2017:
    10000)."""

    ais_chains: Annotated[int, Rule("an integer >= 2", lambda n: n >= 2), Belongs(("tightness",))] = 16
    """Task tightness: chains an example of annealed importance sampling. Not in the paper (Wu et al. 2017: 16)."""

    snr_k: Annotated[SomeIncreasing, Belongs(("snr",))] = (1, 3, 10, 30, 100, 300, 1000)
    """Task snr: numbers of importance samples for which the gradients are compared. Not in the paper."""

    snr_samples: Annotated[Count, Belongs(("snr",))] = 30_000
    """Task snr: importance samples an example drawn for each of these numbers; a gradient takes k of them. Not in the
    paper."""

    _path: ClassVar[str] = "evaluation"


def _rule_likelihood_fits_data(experiment: "Experiment") -> None:
    data, model = experiment.data, experiment.model
    if data.name in SYNTHETIC_DATASETS and model.likelihood != "gaussian":
        model.refuse("likelihood", f"'gaussian' with the real numbers of data.name {data.name!r}")
    if model.likelihood != "bernoulli" and data.binarization != "none":
        data.refuse("binarization", f"'none' with model.likelihood {model.likelihood!r}")


def _rule_network_fits(experiment: "Experiment") -> None:
    if experiment.model.network == "conv":
        if experiment.data.name in SYNTHETIC_DATASETS:
            experiment.model.refuse("network", f"'mlp' with data.name {experiment.data.name!r}, which are no images")
        if experiment.training.optimizer != "adam":  # it turns the inputs of dense layers, of which conv has too many
            experiment.training.refuse("optimizer", "'adam' with model.network 'conv'")


def _rule_tasks_have_their_split(experiment: "Experiment") -> None:
    """They add to the evaluation of the test examples, which may be there already if it is not a task."""
    of_test = [task for task in experiment.tasks if task in TASKS]
    if of_test and "evaluate" in experiment.tasks and "test" not in experiment.evaluation.splits:
        experiment.evaluation.refuse("splits", f"test among them with tasks {' '.join(of_test)}")


def _rule_shares_are_of_one_size(experiment: "Experiment") -> None:
    if experiment.data.batch_size % experiment.training.shares:
        experiment.training.refuse("shares", f"a divisor of data.batch_size, {experiment.data.batch_size}")


def _rule_no_start_from_itself(experiment: "Experiment") -> None:
    start = experiment.training.start_from
    if start is not None and os.path.normpath(start) == os.path.normpath(experiment.run_dir):
        raise ConfigError(f"training.start_from: expected the folder of another run, got {start!r}, this run's own")


@dataclass(frozen=True)
class Experiment(Section):
    """One run: what it is called, what is done, and the four groups of parameters."""

    name: FolderName = None  # type: ignore[assignment]  # a name in any case once it is made
    """Name of the run; its files lie in results_dir/name. None: dataset, objective, k, and what else differs from
    experiments.py as it came."""

    seed: Seed = 123
    """Seed of everything random: the same seed gives the same run. Not stated in the paper."""

    tasks: Selection[TaskName] = ("train", "evaluate", "plot")
    """What is done, in this order; what comes after plot only if it is asked for."""

    results_dir: Path = "results"
    """Folder that holds the folders of the runs."""

    overwrite: bool = False
    """Start afresh where a run of this name exists; its files are moved aside, into overwritten-1 and so on there."""

    accept_changes: bool = False
    """Continue an unfinished run of a given name although parameters of training differ, such as its learning rate; the
    change is noted in experiment.json."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)

    _rules: ClassVar = (
        _rule_likelihood_fits_data, _rule_network_fits, _rule_tasks_have_their_split, _rule_shares_are_of_one_size,
        _rule_no_start_from_itself,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, MadeName):
            return super().__post_init__()
        if self.accept_changes is True:
            raise ConfigError("accept_changes: expected False without a name (one that is made changes too), got True")
        object.__setattr__(self, "name", "made")
        super().__post_init__()  # checks and converts the rest
        object.__setattr__(self, "name", MadeName(_made_name(self)))
        for rule in self._rules:
            rule(self)

    @property
    def run_dir(self) -> str:
        """Folder of the run's files."""
        return os.path.join(self.results_dir, self.name)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """The parameters as nested dictionaries, lists and plain values, as JSON has them."""
    return plain(experiment)


def from_dict(values: Mapping[str, Any], *, any_objective: bool = False) -> Experiment:
    """The inverse of `to_dict`; with `any_objective` one that is not registered is accepted, as `Unregistered`.

    Raises:
        ConfigError: for a key that is unknown or missing and for a value that is refused.
    """
    model = values.get("model") if any_objective and isinstance(values, Mapping) else None
    if isinstance(model, Mapping) and isinstance(model.get("objective"), str) and model["objective"] not in OBJECTIVES:
        values = {**values, "model": {**model, "objective": Unregistered(model["objective"])}}
    return from_mapping("", values, Experiment)


def in_a_name(parameter: str) -> bool:
    """Whether a change in a parameter makes another run, which the names that runs are given therefore say."""
    return parameter not in INCIDENTAL and not parameter.startswith("evaluation.")


DEFAULT = Experiment("digits_iwae_k50", model=Model(latent_units=(2,)), training=Training(stages=5))
"""experiments.py as it came, a run of two minutes with every picture."""


def _made_name(experiment: Experiment) -> str:
    values, main = flatten(experiment), ("data.name", "model.objective", "model.k")
    changed = {name for name, _, _ in differences(experiment, DEFAULT) if name not in main and in_a_name(name)}
    return "{}_{}_k{}".format(*(name_part(name, values[name]) for name in main)) + name_ending(values, changed)


TASK_PARAMETERS: dict[str, tuple[str, ...]] = {
    f"evaluation.{name}": tag
    for name, kind in kinds(Evaluation).items()
    for tag in kind.tags
    if isinstance(tag, Belongs)
}
"""The tasks that depend on a parameter, for those on which not all do."""
