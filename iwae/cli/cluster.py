"""Several runs of one command on a Ray cluster, each a task in a process of its own (Ray Core).

The pool says what is next, as on one machine, and never hands out more than the nodes have room for. Ray finds the
node, and starts a run again, there or on another one, when its process or its node died; it continues from its
checkpoint.
"""

import logging
import os
import platform
import runpy
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from iwae.cli.pool import Again, Pool, Work, one_line
from iwae.config import ConfigError, Experiment
from iwae.data.catalogue import CATALOGUE
from iwae.runs.process import Stopped, outcome
from iwae.sections import RunError

try:
    import ray
except ImportError:
    raise ConfigError("cluster: expected the package ray, found none; pip install ray") from None

RETRIES = 10  # of a run whose process or node died; one that Ray stopped for its memory is started without limit
_SECONDS_TO_ANSWER = 10.0
_LOOPBACK = ("localhost", "127.0.0.1")
_OURS = ("IWAE_", "TF_", "XLA_")  # environment variables that a run gets from the command, as a child process does


class ClusterPool(Pool):
    """Runs experiments on the nodes of a Ray cluster, longest first; all nodes see the same results folder.

    Args:
        run: of one experiment; a function of a module, or a partial of one.
        address: of the cluster, HOST:PORT or "auto".
        cpus, gpus: how much of a node each run takes.

    Raises:
        ConfigError: there is no such cluster, or no node that large; or a run is to overwrite another one.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        run: Callable[[Experiment], Any],
        address: str,
        cpus: float,
        gpus: float = 0,
    ):
        super().__init__(longest_first(experiments), run)
        if any(experiment.overwrite for experiment in experiments):
            raise ConfigError(
                "overwrite: expected False on a cluster, where a run that died is started again, got True"
            )
        self._needs = {"CPU": cpus, "GPU": gpus}
        try:  # before Pool.run handles signals: Ray has a handler of its own, which would end the command at once
            if address != "auto":  # Ray would try for half an hour
                host, port = address.split(":")
                host = ray.util.get_node_ip_address() if host in _LOOPBACK else host  # as Ray does
                socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(f"cluster: expected a Ray cluster at {address}, got: {one_line(error)}") from None
        if not self._room():
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            sizes = {f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes}
            found = ", ".join(sorted(sizes))
            raise ConfigError(f"cluster: expected a node with {cpus:g} CPUs and {gpus:g} GPUs, got {found}")
        main = getattr(sys.modules["__main__"], "__file__", None)
        self._settings = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
        if not gpus:  # Ray hides none from a task that asked for none
            self._settings["CUDA_VISIBLE_DEVICES"] = "-1"
        self._origin = os.getcwd(), main and os.path.abspath(main)
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=RETRIES)(_task)

    def _room(self) -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(min(_times(node.get(name, 0), need) for name, need in self._needs.items() if need) for node in nodes)

    def _begun(self, experiment: Experiment) -> Work:
        return Task(self._task.remote(experiment, self._run, *self._origin, self._settings))

    def _ended(self, seconds: float) -> Collection[Work]:
        tasks = {task.reference: task for task in self._at_work() if isinstance(task, Task)}
        if not tasks:
            time.sleep(seconds)
            return []
        return [tasks[reference] for reference in ray.wait(list(tasks), timeout=seconds)[0]]


class Task:
    """A run under way on the cluster."""

    def __init__(self, reference: Any):
        self.reference = reference

    def send(self, number: int) -> None:
        ray.cancel(self.reference)  # which reaches the run as SIGINT, whatever the number

    def error(self) -> Exception | None:
        try:
            error = ray.get(self.reference)
        except ray.exceptions.TaskCancelledError:
            error = Stopped()
        except ray.exceptions.RayError as failed:  # a traceback, of which the last line says what was wrong
            return RunError(str(failed).strip().splitlines()[-1])
        # By a signal to the process or its node, which Ray takes for the wish to end the run.
        return Again("stopped by a signal on its node; it is started again") if isinstance(error, Stopped) else error


def _task(
    experiment: Experiment, run: Callable[[Experiment], Any], place: str, main: str | None, settings: Mapping[str, str]
) -> Exception | None:
    """Runs an experiment on a node, in the folder `place`, with the objectives that the script `main` registers.

    Not in a child process, which `ray.cancel` would not reach.
    """
    try:
        os.chdir(place)
        os.stat(experiment.run_dir)
    except OSError as error:
        return RunError(f"{error.filename}: expected a folder that all nodes share, not found on {platform.node()}")
    os.environ.update(settings)

    def prepared(experiment: Experiment) -> None:
        if main is not None:
            runpy.run_path(main, run_name="__mp_main__")  # as multiprocessing calls it in a child
        run(experiment)

    return outcome(experiment, prepared)


def _times(there: float, need: float) -> int:
    """How often `need` fits; a part of a GPU or of a core is never of two of them."""
    return int(there) * int(1 / need + 1e-9) if need < 1 else int(there // need)


def longest_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Experiments by their expected time, with that of the runs that start from them."""
    work = {os.path.normpath(experiment.run_dir): _work(experiment) for experiment in experiments}
    for experiment in experiments:
        start = experiment.training.start_from
        if start is not None and os.path.normpath(start) in work:
            work[os.path.normpath(start)] += _work(experiment)
    return sorted(experiments, key=lambda experiment: -work[os.path.normpath(experiment.run_dir)])


def _work(experiment: Experiment) -> float:
    """Of a training, in arbitrary units: an update costs about as much as three samples, and k (docs/speed.md)."""
    training, model = experiment.training, experiment.model
    few = min(training.first_k_epochs, training.passes)
    samples = few * (training.first_k or 0) + (training.passes - few) * model.k
    known = CATALOGUE.get(experiment.data.name)
    images = known.sizes[0] if known is not None and known.sizes is not None else 50_000
    return images * (3 * training.passes + samples) * (1 + 0.5 * (len(model.latent_units) - 1))
