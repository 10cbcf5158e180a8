"""A user's first afternoon, with the installed package and a copy of experiments.py in the working folder.

    python trial.py

Each step is a command or a few lines that a user would type, and what has to come of it. Ends with a traceback at the
first that does not hold.
"""

import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SMALL = "--data.batch-size 100 --model.k 5 --model.hidden-units 20 --training.stages 1 --evaluation.k 50"
QUICK = "--evaluation.tightness-examples 4 --evaluation.ais-steps 5 --evaluation.ais-chains 2"


def command(words: str, status: int = 0) -> str:
    """What experiments.py prints."""
    ended = subprocess.run([sys.executable, "experiments.py", *words.split()], capture_output=True, text=True)
    assert ended.returncode == status, f"{words}: status {ended.returncode}\n{ended.stderr[-2000:]}"
    return ended.stdout if status == 0 else ended.stderr


def nothing_is_destroyed() -> None:
    command(f"--name first {SMALL}")
    weights = Path("results/first/model.weights.h5")
    before = weights.read_bytes()
    told = command(f"--name first {SMALL} --model.k 3", status=2)
    assert "model.k was 5, is 3" in told and len(told.splitlines()) == 1, told
    assert weights.read_bytes() == before
    command(f"--name first {SMALL} --overwrite")
    assert Path("results/first/overwritten-1/model.weights.h5").read_bytes() == before == weights.read_bytes()


def a_finished_run_by_its_name() -> None:
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert "NLL" in command("--run results/first")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start < 2  # it imports no TensorFlow
    told = command(f"--run results/first --tasks tightness snr {QUICK}")
    assert "annealed importance sampling" in told and "Pareto k-hat" in told and "sampled" in told, told
    entries = json.loads(Path("results/first/evaluation.json").read_text())["test"]
    assert {"nll", "ais", "bidirectional", "gradient_snr"} <= set(entries)


def a_run_trained_longer() -> None:
    command("--run results/first --training.stages 2")
    with open("results/first/log.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def wrong_input_is_told() -> None:
    import iwae

    model = iwae.IWAE(input_dim=64, latent_units=(2,), hidden_units=((20,),), k=3)
    model.compile(optimizer="adam")
    grey = np.round(255 * iwae.load_dataset("digits").train).astype(np.uint8)
    for x, expected in ((grey, "0 to 255"), (grey[:, :9], "[B, 64]"), (np.full((3, 64), np.nan), "finite")):
        try:
            model.fit(x, verbose=0)
        except ValueError as error:
            assert expected in str(error) and "\n" not in str(error), error
        else:
            raise AssertionError(f"accepted: {expected}")


def numbers_of_any_scale() -> None:
    scales, random = np.array([1, 3, 10, 30, 100]), np.random.default_rng(0)
    np.savez("table.npz", x_train=random.normal(size=(3000, 5)) * scales, x_test=random.normal(size=(500, 5)) * scales)
    command(
        "--name table --data.name table.npz --model.likelihood gaussian --data.binarization none --model.k 5 "
        "--model.hidden-units 20 --training.stages 3 --tasks train evaluate"
    )
    found = json.loads(Path("results/table/evaluation.json").read_text())["test"]["nll"]
    entropy = 2.5 * np.log(2 * np.pi * np.e) + np.log(scales).sum()
    assert abs(found - entropy) < 0.3, (found, entropy)


def a_file_that_is_not_there() -> None:
    told = command("--name missing --data.name nowhere.npz", status=2)
    assert "nowhere.npz" in told and len(told.splitlines()) == 1 and not Path("results/missing").exists(), told


def verbs_of_a_model() -> None:
    import iwae
    from iwae import verbs

    run = iwae.load_run("results/first")
    x = run.images("test")[:7]
    assert verbs.reconstruct(run.model, x, k=5).shape == x.shape
    assert verbs.embed(run.model, x)[0].shape == (7, 2)
    assert verbs.interpolate(run.model, x[:3], x[3:6], steps=4).shape == (4, 3, 64)
    values, stderr = verbs.estimate_log_likelihood(run.model, x, k=50)
    assert values.shape == (7,) and stderr > 0
    assert run.model.sample(5).shape == (5, 64)
    assert run.model.predict(x, verbose=0).shape == (7, 5)


STEPS = (
    nothing_is_destroyed,
    a_finished_run_by_its_name,
    a_run_trained_longer,
    wrong_input_is_told,
    numbers_of_any_scale,
    a_file_that_is_not_there,
    verbs_of_a_model,
)

if __name__ == "__main__":
    for step in STEPS:
        start = time.perf_counter()
        step()
        print(f"{step.__name__.replace('_', ' ')}: ok, {time.perf_counter() - start:.1f} s", flush=True)
