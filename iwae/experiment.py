"""An experiment from start to end: load, train, evaluate, plot. The only module that knows all tasks.

TensorFlow and what needs it are imported inside the functions, so that `import iwae` and `--help` do not wait for them.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwae import config, device
from iwae.config import ConfigError, Experiment

if TYPE_CHECKING:
    import numpy as np

    from iwae.data.loading import Dataset
    from iwae.model import IWAE

# What may differ between the parameters of a finished run and those of a new command on the same folder.
NOT_COMPARED = ("tasks", "results_dir", "overwrite", "accept_changes", "data.path", "training.updates_per_call")

# Parameters that matter to some tasks only: where none of these is asked for, they stay as they were.
TASK_PARAMETERS = {
    ("evaluation.posterior_inputs",): ("plot", "posterior"),
    ("evaluation.tightness_examples", "evaluation.ais_"): ("tightness",),
    ("evaluation.snr_",): ("snr",),
}

# The entries that tasks add to that of the test examples in evaluation.json.
TASK_ENTRIES = {
    "posterior": ("posterior",),
    "tightness": ("ais", "bidirectional", "pareto_k", "warning"),
    "snr": ("gradient_snr",),
}
LAST_PLOT = "active_units"  # of task plot: when it is there, they all are


class RunError(RuntimeError):
    """A run that cannot go on; the message is one line that says what to do."""


@dataclass(frozen=True)
class Run:
    """A run with all that belongs to it; `evaluation` is the content of evaluation.json, {} before there is one."""

    experiment: Experiment
    folder: Path
    dataset: "Dataset"
    model: "IWAE"
    evaluation: dict[str, Any]

    def images(self, split: str) -> "np.ndarray":
        """The images [n, D] of a split as the model is given them: with the one binarization fixed by the seed."""
        return prepared_images(self.dataset, split, self.experiment)

    @property
    def title(self) -> str:
        """Run, dataset, objective and k, for the titles of plots."""
        model = self.experiment.model
        return f"{self.experiment.name} ({self.dataset.name}, {model.objective.upper()}, k = {model.k})"


def run(experiment: Experiment) -> Run:
    """Does the tasks of an experiment, or what is missing of them, and writes `results/<name>/`.

    A finished run with the same parameters is left as it is, unless its tasks are asked for without "train": then these
    are done again. An unfinished one is continued.

    Raises:
        ConfigError: the folder holds a run with other parameters, or the dataset does not fit the parameters.
        RunError: anything else that stops a run, in one line.
    """
    folder = Path(experiment.run_dir)
    with _file_errors_told(folder), _locked(folder, experiment), _Signals() as signals:
        experiment = _with_kept_parameters(folder, experiment)
        accepted = _check_same_parameters(folder, experiment)
        device.start_tensorflow()
        dataset = load_data(experiment)
        weights = folder / "model.weights.h5"
        redo = "train" not in experiment.tasks
        trained = weights.exists() and (redo or _is_whole(weights) or not _can_be_restored(weights))
        model = build_model(experiment, dataset, weights if trained else None)
        before = _read_json(folder / "experiment.json").get("environment", {})
        environment = before if trained and before else _environment(dataset)  # of the training
        changed = before.get("changed_parameters", []) + accepted
        if changed:
            environment["changed_parameters"] = changed
        _write_json(folder / "experiment.json", config.to_dict(experiment) | {"environment": environment})
        if not trained and redo:
            raise RunError(f"{weights}: expected the weights of a finished training, found none; add 'train' to tasks")
        if not trained:
            _train(experiment, dataset, model, folder, signals)
            _save_weights(model, weights)
        try:
            evaluation = _read_json(folder / "evaluation.json")
        except RunError as error:
            if "evaluate" not in experiment.tasks:
                raise
            warnings.warn(f"{error}; it is made anew", stacklevel=2)
            evaluation = {}
        result = Run(experiment, folder, dataset, model, evaluation)
        left = set(experiment.tasks) if redo else _tasks_left(experiment, evaluation)
        if "evaluate" in left:
            result = _evaluate(result)
        if "plot" in left:
            _plot(result)
        for task, do in {"posterior": _posterior, "tightness": _tightness, "snr": _snr}.items():
            if task in left and "test" not in result.evaluation:
                raise RunError(f"tasks: {task!r} adds to the evaluation of the test examples; add 'evaluate' to tasks")
            if task in left:
                result = do(result)
    print(summary(result))
    return result


def is_finished(experiment: Experiment) -> bool:
    """Whether `run` would leave everything as it is; needs no TensorFlow.

    Raises:
        ConfigError: the folder holds a run with other parameters.
    """
    folder, tasks = Path(experiment.run_dir), set(experiment.tasks)
    if experiment.overwrite or "train" not in tasks or not _is_whole(folder / "model.weights.h5"):
        return False
    experiment = _with_kept_parameters(folder, experiment)
    _check_same_parameters(folder, experiment)
    try:
        return not _tasks_left(experiment, _read_json(folder / "evaluation.json"))
    except RunError:  # damaged: `run` tells, and makes it anew
        return False


def _tasks_left(experiment: Experiment, evaluation: dict[str, Any]) -> set[str]:
    """The tasks after training that have not been done yet."""
    test = evaluation.get("test", {})
    done = {
        "train": True,
        "evaluate": set(evaluation) == set(experiment.evaluation.splits),
        "plot": Path(experiment.run_dir, "plots", f"{LAST_PLOT}.png").exists(),
        **{task: entries[0] in test for task, entries in TASK_ENTRIES.items()},
    }
    return {task for task in experiment.tasks if not done[task]}


def load_run(folder: str | os.PathLike) -> Run:
    """A run that lies under `folder`, with its trained model and its dataset."""
    folder = Path(folder)
    if not (folder / "experiment.json").exists():
        raise RunError(f"{folder}: expected the folder of a run, with experiment.json, found none")
    experiment = _read_experiment(folder)
    device.start_tensorflow()
    dataset = load_data(experiment)
    weights = folder / "model.weights.h5"
    if not weights.exists():
        raise RunError(f"{weights}: expected the weights of a finished training, found none")
    model = build_model(experiment, dataset, weights)
    return Run(experiment, folder, dataset, model, _read_json(folder / "evaluation.json"))


# ---- the parts of an experiment ----


def load_data(experiment: Experiment) -> "Dataset":
    """The dataset of an experiment.

    Raises:
        ConfigError: the parameters do not fit the data.
    """
    from iwae.data import loading

    data = experiment.data
    try:
        dataset = loading.load_dataset(
            data.name,
            data.path,
            seed=experiment.seed,
            synthetic_examples=data.synthetic_examples,
            allow_real=experiment.model.likelihood == "gaussian",
        )
    except ValueError as error:
        raise ConfigError(f"data.name: {error}") from None
    except OSError as error:
        raise RunError(str(error)) from None
    if data.batch_size > len(dataset.train):
        raise ConfigError(
            f"data.batch_size: expected at most the {len(dataset.train)} training examples of {data.name}, "
            f"got {data.batch_size}"
        )
    if max(experiment.evaluation.posterior_inputs, default=0) >= len(dataset.test):
        raise ConfigError(
            f"evaluation.posterior_inputs: expected numbers below {len(dataset.test)}, the test examples of "
            f"{data.name}, got {max(experiment.evaluation.posterior_inputs)}"
        )
    if dataset.kind == "grey" and data.binarization == "none" and experiment.model.likelihood == "bernoulli":
        warnings.warn("grey values as Bernoulli targets: the bounds are not log likelihoods", stacklevel=2)
    return dataset


def prepared_images(dataset: "Dataset", split: str, experiment: Experiment) -> "np.ndarray":
    """The images [n, D] of a split with the binarization of the experiment; stochastic becomes one fixed draw."""
    from iwae.data import loading

    how = experiment.data.binarization
    images = getattr(dataset, split)
    return loading.binarize(images, "fixed" if how == "stochastic" else how, experiment.seed)


def build_model(experiment: Experiment, dataset: "Dataset", weights: Path | None = None) -> "IWAE":
    """The model of an experiment with the weights of a file, or else those that its training starts from.

    These are new ones, or the weights of the run that `training.start_from` names.
    """
    from iwae.model import IWAE

    settings = experiment.model
    model = IWAE(
        input_dim=dataset.train.shape[1],
        latent_units=settings.latent_units,
        hidden_units=settings.hidden_units,
        objective=settings.objective,
        k=settings.k,
        likelihood=settings.likelihood,
        estimator=settings.estimator,
        alpha=settings.alpha,
        groups=settings.groups,
        mixture=settings.mixture,
        beta=settings.beta,
        data_mean=dataset.train_mean,
        data_std=dataset.train_std,
        seed=experiment.seed,
    )
    if weights is None and experiment.training.start_from is not None:
        weights = _weights_to_start_from(Path(experiment.training.start_from), settings)
    if weights is not None:
        if not _is_whole(weights):
            raise RunError(f"{weights}: expected the bytes that were written (model.weights.h5.sha256), got others")
        try:
            model.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{weights}: expected the weights of this model, got an error: {error}") from None
    return model


def _weights_to_start_from(start: Path, settings: config.Model) -> Path:
    """The weights of the finished run `start`, whose network must be the one of `settings`."""
    other = _read_experiment(start).model
    for name in ("latent_units", "hidden_units", "likelihood"):
        if getattr(other, name) != getattr(settings, name):
            raise ConfigError(
                f"model.{name}: expected {getattr(other, name)} as in training.start_from {str(start)!r}, "
                f"got {getattr(settings, name)}"
            )
    weights = start / "model.weights.h5"
    if not weights.exists():
        raise RunError(f"training.start_from: expected a finished run, with {weights}, found none")
    return weights


def _train(experiment: Experiment, dataset: "Dataset", model: "IWAE", folder: Path, signals: "_Signals") -> None:
    from iwae import training
    from iwae.runs import checkpoints

    stochastic = experiment.data.binarization == "stochastic" and dataset.kind == "grey"
    try:
        with signals.deferred():
            training.train(
                model,
                dataset.train if stochastic else prepared_images(dataset, "train", experiment),
                prepared_images(dataset, "valid", experiment),
                experiment.training,
                stochastic=stochastic,
                batch=experiment.data.batch_size,
                seed=experiment.seed,
                folder=folder,
                beta=experiment.model.beta,
                beta_warmup_epochs=experiment.model.beta_warmup_epochs,
                stop_requested=lambda: signals.received is not None,
            )
    except training.StopRequested:
        print(f"stopped; a checkpoint is in {folder / 'checkpoints'}: the same command continues", file=sys.stderr)
        raise Interrupted(signals.received or signal.SIGTERM) from None
    except (training.NonFiniteBound, checkpoints.CheckpointError) as error:
        raise RunError(f"{error} (run {folder})") from None


def _evaluate(run: Run) -> Run:
    from iwae import evaluation

    settings = run.experiment.evaluation
    results: dict[str, Any] = {}
    for split in settings.splits:
        images = run.images(split)
        label = f"evaluate {split}"
        try:
            results[split], _ = evaluation.evaluate(run.model, images, settings, run.experiment.seed, label)
        except evaluation.NonFiniteLogWeight as error:
            raise RunError(f"{run.folder}: {split}: {error}") from None
        if run.dataset.log_density is not None:
            chosen = images[evaluation.spread(len(images), settings.examples or len(images))]
            results[split]["true_log_likelihood"] = float(run.dataset.log_density(chosen).mean())
        # What other tasks measured stays: the weights are the same, and each entry says what else it was made with.
        before = run.evaluation.get(split, {})
        kept = [name for entries in TASK_ENTRIES.values() for name in entries if name in before]
        results[split] |= {name: before[name] for name in kept}
    _write_json(run.folder / "evaluation.json", results)
    return Run(run.experiment, run.folder, run.dataset, run.model, results)


def _plot(run: Run) -> None:
    """The figures of every run; `LAST_PLOT` is written last."""
    import numpy as np

    from iwae import evaluation
    from iwae.diagnostics import posterior
    from iwae.figures import of_run, plots
    from iwae.runs import log

    seed, shape, test = run.experiment.seed, run.dataset.image_shape, run.images("test")
    made: dict[str, Any] = {}
    try:
        rows = log.read(run.folder / "log.csv")
    except ValueError as error:
        raise RunError(str(error)) from None
    if rows:
        columns = {name: [row[name] for row in rows] for name in log.COLUMNS}
        made["learning_curves"] = plots.learning_curves([(run.experiment.name, columns)], run.title)
    means = evaluation.posterior_means(run.model, test, seed)
    if shape:
        samples = np.array(run.model.sample(100, (seed, 0)))
        made["samples"] = plots.samples(samples.reshape(-1, *shape), run.title)
        chosen = test[evaluation.spread(len(test), 40)]
        reconstructions = np.array(run.model.decode_mean(run.model.encode(chosen, 1, (seed, 1))[0][0]))
        made["reconstructions"] = plots.reconstructions(
            chosen.reshape(-1, *shape), reconstructions.reshape(-1, *shape), run.title
        )
    if run.experiment.model.likelihood == "gaussian" and not shape:
        made |= _density_figures(run)
    made |= of_run.latent_scatter(run, means) | of_run.decoded(run)
    if run.model.latent_units == (2,):
        numbers = of_run.chosen_inputs(run)
        made |= of_run.posterior_input(run, numbers, posterior.on_grid(run.model, test[numbers], seed))
    threshold = run.experiment.evaluation.active_unit_threshold
    made["active_units"] = plots.active_units(evaluation.activity(means), threshold, run.title)

    _save_figures(run, made)


def _posterior(run: Run) -> Run:
    """Hamiltonian Monte Carlo on the true posterior of chosen inputs, beside draws of q and q_IW."""
    from iwae.diagnostics import annealing, posterior
    from iwae.figures import of_run

    numbers, seed, settings = of_run.chosen_inputs(run), run.experiment.seed, run.experiment.evaluation
    images, chains = run.images("test")[numbers], 32
    truth = annealing.hamiltonian_monte_carlo(
        run.model, images, chains, 25, seed, steps=settings.ais_steps, label="Hamiltonian Monte Carlo"
    )
    entry = {
        "inputs": numbers.tolist(),
        "hmc_chains": chains,
        "annealing_steps": settings.ais_steps,
        "acceptance": truth.acceptance.tolist(),
        "r_hat": truth.r_hat.tolist(),
    }
    made = of_run.latent_pairs(run, numbers, truth)
    if posterior.applies(run.model):
        grids = posterior.on_grid(run.model, images, seed)
        entry["log_likelihood"] = [grid.log_evidence for grid in grids]
        entry["kl"] = {str(k): [grid.kl[k] for grid in grids] for k in grids[0].kl}
        made |= of_run.posterior_input(run, numbers, grids)
    _save_figures(run, made)
    return _with_entries(run, "posterior", {"posterior": entry})


def _tightness(run: Run) -> Run:
    """Annealed importance sampling beside L_k, bidirectional Monte Carlo on simulated examples, Pareto k-hat."""
    from iwae import evaluation
    from iwae.diagnostics import tightness
    from iwae.figures import plots

    settings, test = run.experiment.evaluation, run.images("test")
    images = test[evaluation.spread(len(test), settings.tightness_examples)]
    how = (settings.k, settings.ais_steps, settings.ais_chains, run.experiment.seed, "annealed importance sampling")
    values = tightness.per_image(run.model, images, *how)
    bracket = tightness.bidirectional(run.model, len(images), *how)
    _save_figures(run, {"tightness": plots.tightness(**values, title=run.title, k=settings.k)})
    return _with_entries(run, "tightness", tightness.summarize(values, bracket, settings))


def _snr(run: Run) -> Run:
    """Signal-to-noise ratio of the gradients over k, for the chosen inputs."""
    from iwae.diagnostics import snr
    from iwae.figures import of_run, plots

    settings, numbers = run.experiment.evaluation, of_run.chosen_inputs(run)
    ratios = snr.signal_to_noise(
        run.model,
        run.images("test")[numbers],
        settings.snr_k,
        settings.snr_samples,
        run.experiment.seed,
        label="signal to noise",
    )
    pairs = {name: (encoder, decoder) for name, (encoder, decoder) in ratios.items()}
    _save_figures(run, {"gradient_snr": plots.gradient_snr(settings.snr_k, pairs, run.title)})
    values = {name: dict(zip(("encoder", "decoder"), pair.tolist(), strict=True)) for name, pair in ratios.items()}
    entry = {"inputs": numbers.tolist(), "samples": settings.snr_samples, "k": list(settings.snr_k), **values}
    return _with_entries(run, "snr", {"gradient_snr": entry})


def _with_entries(run: Run, task: str, entries: dict[str, Any]) -> Run:
    """The run with the entries of a task, in place of its old ones, for the test examples in evaluation.json."""
    others = {name: value for name, value in run.evaluation["test"].items() if name not in TASK_ENTRIES[task]}
    results = run.evaluation | {"test": others | entries}
    _write_json(run.folder / "evaluation.json", results)
    return Run(run.experiment, run.folder, run.dataset, run.model, results)


def _save_figures(run: Run, figures: dict[str, Any]) -> None:
    """Writes figures into plots/, each of them whole; those of other tasks stay."""
    from iwae.figures import plots

    folder = run.folder / "plots"
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")


def _density_figures(run: Run) -> dict[str, Any]:
    """The model beside the density of one- or two-dimensional data; none for data of more dimensions."""
    import numpy as np

    from iwae import evaluation
    from iwae.diagnostics import quadrature
    from iwae.figures import plots

    data, log_density, seed = run.dataset.test, run.dataset.log_density, run.experiment.seed
    if quadrature.applies(run.model):
        x = np.linspace(*_span(data[:, 0]), 401)
        model = quadrature.one_dimensional(run.model, x, posterior_x=float(np.median(data)))
        density = None if log_density is None else np.exp(log_density(x[:, None]))
        values, title = run.evaluation.get("test", {}), run.title
        if "true_log_likelihood" in values:
            title += f"; L_{values['k']} = {-values['nll']:.3f}, true E[log p(x)] = {values['true_log_likelihood']:.3f}"
        return {"one_dimensional": plots.one_dimensional(**model._asdict(), density=density, title=title)}
    if data.shape[1] == 2:
        data = data[evaluation.spread(len(data), 2000)]
        draws = run.model.decode(run.model.sample_latents(len(data), (seed, 2))).sample(seed=(seed, 3))
        truth = None
        if log_density is not None:
            x1, x2 = (np.linspace(*_span(values), 201) for values in data.T)
            points = np.stack(np.meshgrid(x1, x2), axis=-1)
            truth = (x1, x2, log_density(points.reshape(-1, 2)).reshape(points.shape[:2]))
        figure = plots.two_dimensional_density(data, np.array(draws), run.title, truth)
        return {"two_dimensional_density": figure}
    return {}


def _span(values: "np.ndarray") -> tuple[float, float]:
    """An interval somewhat wider than that of the values."""
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def summary(run: Run) -> str:
    """What a run gave, in a few lines for the terminal."""
    lines = [f"{run.title}: {run.folder}"]
    for split, values in run.evaluation.items():
        active = "+".join(str(units) for units in values["active_units"])
        digits = 3 if "true_log_likelihood" in values else 2
        lines.append(
            f"  {split}: NLL {values['nll']:.{digits}f} +- {values['nll_stderr']:.{digits}f} nats (L_{values['k']}, "
            f"{values['examples']} examples), active units {active}"
        )
        if "true_log_likelihood" in values:
            lines.append(
                f"  {split}: the true density gives {-values['true_log_likelihood']:.3f} nats on the same data"
            )
    plots = sorted((run.folder / "plots").glob("*.png"))
    if plots:
        lines.append(f"  {len(plots)} plots in {run.folder / 'plots'}")
    return "\n".join(lines)


# ---- the folder of a run ----


@contextlib.contextmanager
def _file_errors_told(folder: Path):
    """Makes of a full disk and the like a `RunError` that names the file."""
    try:
        yield
    except BrokenPipeError:  # of the terminal, no file of ours
        raise
    except OSError as error:
        raise RunError(
            f"{error.filename or folder}: {error.strerror or error}; the last checkpoint is kept, "
            "and the same command continues from it"
        ) from None


@contextlib.contextmanager
def _locked(folder: Path, experiment: Experiment):
    """Makes the folder and holds its lock; the operating system frees the lock of a process that died."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise RunError(f"{folder}: expected a folder that can be written, got: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is working on this run") from None
        if experiment.overwrite:
            for entry in folder.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for entry in (*folder.glob(".*part*"), *folder.glob("plots/.*part*")):  # what a killed process left
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield


def _with_kept_parameters(folder: Path, experiment: Experiment) -> Experiment:
    """The experiment, with the parameters of tasks that are not asked for as they are in the folder."""
    if not (folder / "experiment.json").exists():
        return experiment
    not_asked = [names for names, tasks in TASK_PARAMETERS.items() if not set(tasks) & set(experiment.tasks)]
    names = tuple(name for names in not_asked for name in names)
    differences = config.differences(_read_experiment(folder), experiment)
    return config.replace(experiment, {name: before for name, before, _ in differences if name.startswith(names)})


def _check_same_parameters(folder: Path, experiment: Experiment) -> list[str]:
    """Refuses a folder whose run has other parameters; how to evaluate may change when that is all that is asked.

    Returns:
        The changes in the training of an unfinished run that `accept_changes` lets pass, as text.
    """
    if not (folder / "experiment.json").exists():
        return []
    not_compared = NOT_COMPARED if "train" in experiment.tasks else (*NOT_COMPARED, "evaluation.")
    found = {
        name: f"{name} was {before!r}, is {now!r}"
        for name, before, now in config.differences(_read_experiment(folder), experiment)
        if not name.startswith(not_compared)
    }
    acceptable = not (folder / "model.weights.h5").exists() and all(
        name.startswith("training.") and name != "training.start_from" for name in found
    )
    if found and not (acceptable and experiment.accept_changes):
        raise ConfigError(
            f"name: {str(folder)!r} holds a run with other parameters ({'; '.join(found.values())}); choose another "
            f"name, {'--accept-changes to continue with these, ' if acceptable else ''}or --overwrite to start afresh"
        )
    from iwae.runs import checkpoints

    update = checkpoints.latest_update(folder / "checkpoints") if found else 0
    return [f"after update {update}: {change}" for change in found.values()]


def _read_experiment(folder: Path) -> Experiment:
    values = _read_json(folder / "experiment.json")
    if not values:
        raise RunError(f"{folder / 'experiment.json'}: expected the parameters of a run, found none")
    values.pop("environment", None)
    try:
        return config.from_dict(with_defaults(values))
    except ConfigError as error:
        raise RunError(f"{folder / 'experiment.json'}: {error}") from None


def with_defaults(values: Any, defaults: Any = None) -> Any:
    """The content of an experiment.json, with the defaults of parameters that its version did not have."""
    defaults = config.to_dict(Experiment("run")) if defaults is None else defaults
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return values
    return {**defaults, **{name: with_defaults(value, defaults.get(name, 0)) for name, value in values.items()}}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: expected JSON, got an error: {error}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: expected named values, got {config.shown(values)}")
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    from iwae.runs import checkpoints

    checkpoints.write_atomically(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _save_weights(model: "IWAE", path: Path) -> None:
    """Writes the weights, and before them `model.weights.h5.sha256`, which `sha256sum --check` reads as well."""
    from iwae.runs import checkpoints

    temporary = path.with_name(".part.weights.h5")
    try:
        model.save_weights(temporary)
        content = temporary.read_bytes()
    except (OSError, RuntimeError) as error:  # the HDF5 library has either for a full disk
        raise OSError(None, " ".join(str(error).split()), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    checksum = hashlib.sha256(content).hexdigest()
    checkpoints.write_atomically(_checksum_file(path), f"{checksum}  {path.name}\n".encode())
    checkpoints.write_atomically(path, content)


def _checksum_file(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.sha256")


def _is_whole(weights: Path) -> bool:
    """Whether there are weights with the checksum they were written with; runs of an earlier version have none."""
    if not weights.exists():
        return False
    if not _checksum_file(weights).exists():
        return True
    return _checksum_file(weights).read_bytes()[:64].decode("ascii", "replace") == (
        hashlib.sha256(weights.read_bytes()).hexdigest()
    )


def _can_be_restored(weights: Path) -> bool:
    """Whether a checkpoint holds the weights of a damaged file, of which a warning then tells."""
    if not any((weights.parent / "checkpoints").glob("*.json")):
        return False
    warnings.warn(f"{weights} is damaged; it is made anew from the last checkpoint", stacklevel=3)
    return True


# ---- the process ----


class _Signals:
    """SIGINT and SIGTERM end the run with `Interrupted`: at once, or while `deferred`, when training asks."""

    def __init__(self):
        self.received: int | None = None
        self._deferred = False

    def __enter__(self):
        self._previous = {}
        with contextlib.suppress(ValueError):  # handlers belong to the main thread; elsewhere all stays as it is
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self):
        self._deferred = True
        yield
        self._deferred = False

    def _handle(self, number, _frame):
        if self._deferred and self.received is None:
            self.received = number
            print("\nstopping after this block of updates, to save a checkpoint ...", file=sys.stderr, flush=True)
        else:
            raise Interrupted(number)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_status` is what a shell expects of that."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_status = 128 + number


def _environment(dataset: "Dataset") -> dict[str, Any]:
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "device": device.name(),
        "git_commit": _git_commit(),
        "dataset_fingerprint": dataset.fingerprint,
    }


def _git_commit() -> str | None:
    """The commit of the code, with "+changes" if the files differ from it; None outside a repository."""
    try:
        describe = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return describe.stdout.strip() or None
