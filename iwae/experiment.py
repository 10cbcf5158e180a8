"""An experiment from start to end: open the folder, load, build, train, then the tasks in order."""

import contextlib
import functools
import hashlib
import importlib
import json
import platform
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import bounds, config, convolutions, evaluation, flows, hardware, training
from iwae.conditional import ConditionalIWAE
from iwae.config import ConfigError, Experiment
from iwae.data import loading
from iwae.data.catalogue import ARRAYS
from iwae.device import members
from iwae.diagnostics import plot
from iwae.figures import style
from iwae.model import IWAE, Networks
from iwae.runs import checkpoints
from iwae.runs.folder import WEIGHTS, Folder
from iwae.runs.process import Interrupted, Signals
from iwae.runs.run import Own, Run, label_values, load_data, prepared_images
from iwae.sections import RunError, differences, flatten
from iwae.team import Team, of_process


def run(
    experiment: Experiment,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    dataset: Own | None = None,
    devices: int = 1,
) -> Run:
    """Does the tasks of an experiment, or what is missing of them, and writes `results/<name>/`.

    A finished run with the same parameters is left as it is, unless its tasks are asked for without "train": then these
    are done again. One with more stages or epochs is trained on from its last checkpoint, after its weights and results
    are moved aside. An unfinished one is continued.

    `callbacks` of Keras are called while it trains, where a batch is a block of `training.updates_per_call` updates.
    What they keep is not in checkpoints. One that sets `model.stop_training` ends the training with the epoch.

    `dataset`: data of your own instead of those that `data.name` names, which becomes "arrays": a `Dataset`, or arrays
    by the names that they have in an .npz (`load_dataset`). Their fingerprint is kept, the arrays are not: to go on, or
    to do more tasks, hand them over again.

    `devices`: GPUs, or CPU devices as `iwae.device.start_tensorflow` makes them, on which it is trained and evaluated
    at once. They divide `training.shares` and change no result. The same goes for processes, if TF_CONFIG names
    several: of those only the first reads and writes the folder, and has the trained model at the end.

    Raises:
        ConfigError: the folder holds a run with other parameters, or the dataset or the devices do not fit them.
        RunError: anything else that stops a run, in one line.
    """
    if "train" in experiment.tasks:
        experiment.training.check_devices(devices, max(1, len(members()[1])))
    team = of_process(devices)
    if dataset is not None:
        experiment = config.replace(experiment, {"data.name": ARRAYS})
    folder = Folder(experiment.run_dir)
    if team.index:
        return _follow(experiment, folder, dataset, team)
    with team.leading(), folder.opened(), Signals() as signals, _lack_of_memory_told(folder):
        redo = "train" not in experiment.tasks
        accepted: list[str] = []
        if not experiment.overwrite:
            folder.check_whole()
            experiment = folder.with_kept_parameters(experiment)
            accepted = folder.check_same_parameters(experiment)
        dataset = load_data(experiment, dataset)
        if not experiment.overwrite:
            folder.check_same_data(dataset.fingerprint)
        longer = bool(accepted) and folder.weights.exists()
        trained = not experiment.overwrite and not longer and folder.has_trained_weights(needed=redo)
        if redo and not trained:
            raise RunError(
                f"{folder.weights}: expected the weights of a finished training, found none; add 'train' to tasks"
            )
        # What cannot be continued from is refused before anything is written.
        begun = 0 if trained or experiment.overwrite else _epochs_begun(folder, experiment, dataset)
        # A checkpoint holds all weights: the run that this one started from need not be there any more.
        start = config.replace(experiment, {"training.start_from": None}) if begun else experiment
        model = build_model(start, dataset, folder if trained else None)
        measured: dict[str, Any] = {}
        if trained:
            measured = _read_evaluation(folder, experiment)
        else:
            training.check_memory(model, experiment.data.batch_size // experiment.training.shares)
            _make_room(folder, experiment.overwrite, longer, begun)
        now = _environment(dataset)
        environment = (folder.environment() if trained or begun else {}) or now  # of the training
        if not trained:
            _note_changes(environment, now, folder, accepted)
        if not redo:
            folder.write_experiment(folder.with_kept_parameters(experiment, of_others=True), environment)
        if not trained:
            team.tell("train", same=np.array(_what_all_share(experiment, dataset)))
            team.work_done()  # they are on their way to the first block
            _train(experiment, dataset, model, folder, signals, callbacks, team)
        run = Run(experiment, folder, dataset, model, measured)
        result = _with_tasks_done(run, environment if redo else None, team)
    print(result.summary())
    return result


def load_run(folder: str | PathLike[str], dataset: Own | None = None) -> Run:
    """A run that lies under `folder`, with its trained model and its dataset: that which `run` was given, if any.

    Raises:
        RunError: there is none, it is not trained, or a file is damaged.
    """
    opened = Folder(folder)
    if not opened.is_run():
        raise RunError(f"{folder}: expected the folder of a run, with experiment.json, found none")
    experiment = opened.read_experiment()
    dataset = load_data(experiment, dataset)
    opened.check_same_data(dataset.fingerprint)
    if not opened.weights.exists():
        raise RunError(f"{opened.weights}: expected the weights of a finished training, found none")
    return Run(experiment, opened, dataset, build_model(experiment, dataset, opened), opened.current_evaluation())


def build_model(experiment: Experiment, dataset: loading.Dataset, trained: Folder | None = None) -> IWAE:
    """The model of an experiment with the weights of the run `trained`, or else those that its training starts from.

    These are new ones, or the weights of the run that `training.start_from` names.

    Raises:
        ConfigError, RunError: the weights are not there, damaged, or those of another network.
    """
    settings = experiment.model
    try:
        model = _new_model(experiment, dataset)
    except ValueError as error:  # what only a bound of the user's own, or both together, can tell
        raise ConfigError(f"model.{error}") from None
    model.beta.assign(settings.beta)
    if trained is None and experiment.training.start_from is not None:
        trained = _run_to_start_from(Folder(experiment.training.start_from), settings)
    if trained is not None:
        if not trained.weights_are_whole():
            raise RunError(
                f"{trained.weights}: expected the bytes that were written ({trained.checksum.name}), got others"
            )
        try:
            model.load_weights(trained.weights)
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{trained.weights}: expected the weights of this model, got an error: {error}") from None
    return model


def _new_model(experiment: Experiment, dataset: loading.Dataset) -> IWAE:
    settings, std = experiment.model, dataset.train_std
    classes = len(label_values(dataset)) if settings.condition == "labels" else 0
    if dataset.kind != "continuous":  # pixels share a scale: one that is nearly always black tells little of its own
        std = np.maximum(std, 0.1 * std.max())
    network: Networks | None = None
    if settings.network == "conv":
        assert dataset.image_shape is not None  # looked at in `load_data`
        network = convolutions.networks(
            dataset.image_shape, settings.latent_units, settings.hidden_units, settings.channels, settings.likelihood,
            dataset.train_mean, experiment.seed, classes,
        )  # fmt: skip
    elif settings.network == "flow":
        network = flows.SplineFlow(settings.couplings)
    of_class: Callable[..., IWAE] = IWAE
    if classes:
        of_class = functools.partial(ConditionalIWAE, classes=classes, prior=settings.prior)
    model = of_class(
        input_dim=dataset.train.shape[1],
        latent_units=settings.latent_units,
        hidden_units=settings.hidden_units,
        objective=bounds.of(settings),
        k=settings.k,
        likelihood=settings.likelihood,
        estimator=settings.estimator,
        data_moments=(dataset.train_mean, std),
        network=network,
        seed=experiment.seed,
    )
    model.missing = dataset.missing > 0
    return model


def _run_to_start_from(start: Folder, settings: config.Model) -> Folder:
    """The finished run `start`, whose network must be the one of `settings`."""
    other = start.read_experiment().model
    for name in ("network", "latent_units", "hidden_units", *config.NETWORK_OF, "likelihood", "condition", "prior"):
        if getattr(other, name) != getattr(settings, name):
            raise ConfigError(
                f"model.{name}: expected {getattr(other, name)} as in training.start_from {str(start)!r}, "
                f"got {getattr(settings, name)}"
            )
    if not start.weights.exists():
        raise RunError(f"training.start_from: expected a finished run, with {start.weights}, found none")
    return start


def _train(
    experiment: Experiment,
    dataset: loading.Dataset,
    model: IWAE,
    folder: Folder,
    signals: Signals,
    callbacks: Sequence[keras.callbacks.Callback],
    team: Team,
) -> None:
    images, stochastic = _training_set(experiment, dataset)
    try:
        with signals.deferred():
            training.train(
                model,
                images,
                prepared_images(dataset, "valid", experiment),
                experiment.training,
                stochastic=stochastic,
                batch=experiment.data.batch_size,
                seed=experiment.seed,
                folder=folder,
                beta=experiment.model.beta,
                beta_warmup_epochs=experiment.model.beta_warmup_epochs,
                stop_requested=lambda: signals.received is not None,
                run=_identity(experiment, dataset),
                image_shape=dataset.image_shape,
                parameters=flatten(experiment),
                others=callbacks,
                team=team,
            )
    except training.StopRequested:
        same = "the same command without --overwrite" if experiment.overwrite else "the same command"
        print(f"stopped; a checkpoint is in {folder.checkpoints}: {same} continues", file=sys.stderr)
        raise Interrupted(signals.received or signal.SIGTERM, told=True) from None
    except training.NonFiniteBound as error:
        raise RunError(f"{error} (run {folder})") from None
    with tempfile.TemporaryDirectory() as place:  # HDF5 ends the process when a disk is full; our writer does not
        file = Path(place, folder.weights.name)
        optimizer, model.optimizer = model.optimizer, None  # its moments are in the checkpoint, and twice as large
        model.save_weights(file)
        model.optimizer = optimizer
        folder.write_weights(file.read_bytes())
    if signals.received:  # in the last block of updates
        raise Interrupted(signals.received)


def _training_set(experiment: Experiment, dataset: loading.Dataset) -> tuple[np.ndarray, bool]:
    """The training images as `training.train` takes them, and whether they are binarized each time they are used."""
    stochastic = experiment.data.binarization == "stochastic" and dataset.kind == "grey"
    return prepared_images(dataset, "train", experiment, as_they_are=stochastic), stochastic


def _follow(experiment: Experiment, folder: Folder, given: Own | None, team: Team) -> Run:
    """Takes part in the run of the first process of a team, as another one of it."""
    with team.losses_told(), Signals() as signals, _lack_of_memory_told(folder):
        dataset = load_data(experiment, given)
        model = build_model(config.replace(experiment, {"training.start_from": None}), dataset)
        what, arrays = team.hear()
        while what not in ("done", "failed"):
            if what == "importance_sample":
                evaluation.follow(model, arrays, team)
                what, arrays = team.hear()
                continue
            first, own = (json.loads(text) for text in (str(arrays["same"]), _what_all_share(experiment, dataset)))
            others = [f"{name} {first.get(name)!r}, here {own[name]!r}" for name in own if first.get(name) != own[name]]
            if others:
                raise RunError(f"{folder}: expected what the first process has, got others: {'; '.join(others)}")
            images, stochastic = _training_set(experiment, dataset)
            with signals.deferred():
                what, arrays = training.follow(
                    model,
                    images,
                    experiment.training,
                    stochastic=stochastic,
                    batch=experiment.data.batch_size,
                    seed=experiment.seed,
                    team=team,
                    stop_requested=lambda: signals.received is not None,
                )
        if signals.received and what == "failed":
            raise Interrupted(signals.received)
    if what == "failed":
        raise RunError(f"{folder}: the first process ended before the run was done; it says why")
    return Run(experiment, folder, dataset, model, {})


def _what_all_share(experiment: Experiment, dataset: loading.Dataset) -> str:
    """What all processes of a training must have alike, as JSON: parameters, data, and what the last bits depend on."""
    here, of_this_one = _environment(dataset), ("node", "device", "git_commit")
    for name, value in flatten(experiment).items():
        if name in ("seed", "data.batch_size", "data.binarization") or name.startswith(("model.", "training.")):
            here[name] = value
    for name in (*of_this_one, "training.start_from", "training.checkpoint_seconds"):
        del here[name]
    return json.dumps(here)


@contextlib.contextmanager
def _lack_of_memory_told(folder: Folder) -> Iterator[None]:
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        asked = re.search(r"allocate ([\d.]+ ?\w+)", str(error))  # TensorFlow's and NumPy's words
        raise RunError(
            f"{folder}: expected more memory{f' (for {asked[1]} at once)' if asked else ''}; what an update needs "
            "grows with data.batch_size times model.k, and several runs at a time need it several times"
        ) from None


def _epochs_begun(folder: Folder, experiment: Experiment, dataset: loading.Dataset) -> int:
    """Epochs of the newest checkpoint, the one under way among them; 0 if there is none.

    Raises:
        ConfigError: they are more than the experiment has.
        RunError: there are checkpoints that it cannot be continued from.
    """
    found = checkpoints.load(folder.checkpoints, _identity(experiment, dataset))
    begun = found[1]["epoch"] + (found[1]["update"] > 0) if found else 0
    if begun > experiment.training.passes:
        name = "stages" if experiment.training.epochs is None else "epochs"
        wanted = f"as many as the {begun} epochs that have begun in {folder}, or more"
        raise ConfigError(f"training.{name}: expected {wanted}, got {experiment.training.passes} epochs")
    return begun


def _make_room(folder: Folder, overwrite: bool, longer: bool, begun: int) -> None:
    """Moves aside what would be taken for a result of the training that begins."""
    results = (folder.evaluation_json, folder.likelihoods, folder.plots)
    if overwrite:
        folder.move_aside()
        return
    if longer:  # weights beside the new parameters would count as finished
        what, aside = "trained on", folder.move_aside(folder.weights, folder.checksum, *results)
    else:
        there, what = any(path.exists() for path in results), "trained anew, its weights being gone or damaged"
        aside = folder.move_aside(*(results if begun else ())) if there else None
    if aside is not None:
        print(f"{folder}: {what}; what it gave so far is kept in {aside}", file=sys.stderr)


def _identity(experiment: Experiment, dataset: loading.Dataset) -> str:
    """What a checkpoint must share with the run that continues from it: the data, the network, and the seed.

    Of the model's parameters only those that are not the defaults: another version may have more of them.
    """
    model = {name: value for name, value, _ in differences(experiment.model, config.Model())}
    data = experiment.data
    parts: list[Any] = [experiment.seed, data.batch_size, data.binarization, model, dataset.fingerprint]
    if experiment.model.network == "conv":  # to which the same values in other rows are other images
        parts.append(dataset.image_shape)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# ---- the tasks after training ----


def _read_evaluation(folder: Folder, experiment: Experiment) -> dict[str, Any]:
    try:
        return folder.current_evaluation()
    except RunError as error:
        if "evaluate" not in experiment.tasks:
            raise
        warnings.warn(f"{error}; it is made anew", stacklevel=3)
        folder.evaluation_json.unlink()
        return {}


def _with_tasks_done(run: Run, again: dict[str, Any] | None, team: Team) -> Run:
    """The run with its tasks after training done: those that are not yet.

    `again`: the environment of a training that is over; all are done anew, and each writes its parameters down when it
    is done: one that is interrupted leaves those of what is there.
    """
    left = run.folder.tasks_left(run.experiment) if again is None else set(run.experiment.tasks)

    def note(task: str) -> None:
        if again is not None:
            done = config.replace(run.experiment, {"tasks": [task]})
            run.folder.write_experiment(run.folder.with_kept_parameters(done, of_others=True), again)

    if "evaluate" in left:
        run = _evaluated(run, team)
        note("evaluate")
    team.dismiss()  # the rest is done here
    if "plot" in left:
        style.save_all(plot.figures_of(run), run.folder)
        note("plot")
    for task in config.TASKS:
        if task in left and "test" not in run.evaluation:
            raise RunError(f"tasks: {task!r} adds to the evaluation of the test examples; add 'evaluate' to tasks")
        if task in left:
            module = importlib.import_module(f"iwae.diagnostics.{task}")
            entries, drawn = module.run(run)
            others = {name: value for name, value in run.evaluation["test"].items() if name not in module.ENTRIES}
            style.save_all(drawn, run.folder)  # before the entries, by which the task counts as done
            run = run.with_evaluation(run.evaluation | {"test": others | entries})
            note(task)
            print(*module.told(entries), sep="\n")
    return run


def _evaluated(run: Run, team: Team) -> Run:
    settings = run.experiment.evaluation
    results: dict[str, Any] = {}
    likelihoods: dict[str, np.ndarray] = {}
    for split in settings.splits:
        images = run.images(split)
        numbers = evaluation.spread(len(images), settings.examples or len(images))
        try:
            results[split], arrays = evaluation.evaluate(
                run.model, images, settings, run.experiment.seed, f"evaluate {split}", team
            )
        except evaluation.NonFiniteLogWeight as error:
            raise RunError(f"{run.folder}: {split}: {error}") from None
        if run.dataset.log_density is not None:
            results[split]["true_log_likelihood"] = float(run.dataset.log_density(images[numbers]).mean())
        # What other tasks measured stays: the weights are the same, and each entry says what else it was made with.
        of_others = set(run.evaluation.get(split, {})) - set(evaluation.ENTRIES)
        results[split] |= {name: run.evaluation[split][name] for name in of_others}
        results[split][WEIGHTS] = run.folder.recorded_checksum()
        ones = np.packbits(images[:, : run.model.input_dim] == 1)
        results[split]["binarization"] = hashlib.sha256(ones.tobytes()).hexdigest()[:16]
        likelihoods[split] = arrays["log_likelihood_bound"]
        if len(numbers) < len(images):  # else image i is number i
            likelihoods[f"{split}_numbers"] = numbers
    more = [
        f"L_{before['k']} of {before['examples']} {split} examples"
        for split, before in run.evaluation.items()
        if split not in results or any(before[name] > results[split][name] for name in ("k", "examples"))
    ]
    if more:
        aside = run.folder.move_aside(run.folder.evaluation_json, run.folder.likelihoods)
        print(f"{', '.join(more)}: kept in {aside}")
    run.folder.write_likelihoods(likelihoods, results.get("test", {}).get("binarization", ""))
    return run.with_evaluation(results)


def _note_changes(
    environment: dict[str, Any], now: dict[str, Any], folder: Folder, changed_parameters: list[str]
) -> None:
    """Adds to the environment of a training what is another now that it goes on, and warns of it.

    The same bits are promised for the same versions, device and number of threads only.
    """
    update = checkpoints.latest_update(folder.checkpoints)
    before = dict(environment)
    for stretch in environment.get("stretches", []):
        before |= stretch
    others = {name: value for name, value in now.items() if before.get(name) != value}
    if others and update:
        environment.setdefault("stretches", []).append({"from_update": update, **others})
    others.pop("node", None)  # which by itself changes nothing
    if others and update:
        changes = "; ".join(f"{name} was {before.get(name)}, is {value}" for name, value in others.items())
        warnings.warn(f"{folder} goes on after update {update} under other conditions ({changes})", stacklevel=3)
    if changed_parameters:
        environment["changed_parameters"] = environment.get("changed_parameters", []) + changed_parameters


def _environment(dataset: loading.Dataset) -> dict[str, Any]:
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "node": platform.node(),
        "device": hardware.describe(),
        "threads": hardware.threads(),
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
