"""One training in shares of its batches: the same run on any number of devices, and nearly that without shares."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_training import D, grey_images, settings, stop_when_asked
from tiny import experiment

import iwae
from iwae import config, device, hardware, training
from iwae.model import IWAE
from iwae.runs import checkpoints
from iwae.runs.folder import Folder
from iwae.team import Team

# Batches of 8 in four shares; the last one of an epoch has 2, 2, 1 and no examples in them. The rate halves after an
# epoch, which a copy on another device must be told.
EXAMPLES, BATCH, SHARES = 21, 8, 4
CASES = {
    "sampled": {},
    "dreg, rotated": {"optimizer": "rotated_adam", "first_k": 2, "first_k_epochs": 1},
    "reparameterized": {},
    "reparameterized, vae": {"beta_warmup_epochs": 1},
    "dreg": {},
    "sticking_the_landing, vae": {},
    "dreg, two layers": {},
}
FEW = ["sampled"]  # every one takes some seconds of compilation
on_two_cores = pytest.mark.skipif(device.cores() < 2, reason="a device of its own needs a core")


def train(folder, case, shares, devices=1, stop=lambda model: False):
    """What the checkpoint at the end has: the weights and the optimizer's variables by name."""
    estimator, _, more = case.partition(", ")
    latent, hidden = ((3, 2), ((6, 4), (5,))) if more == "two layers" else ((2,), ((6, 4),))
    objective = "vae" if more == "vae" else "iwae"
    model = IWAE(D, latent, hidden, objective=objective, estimator=estimator, k=3, seed=11)
    changes = {**CASES[case], "shares": shares}
    warm_up = changes.pop("beta_warmup_epochs", 0)
    halved = {"schedule": "multistep", "milestones": (1,), "gamma": 0.5, "epochs": 2, "updates_per_call": 1}
    try:
        training.train(
            model, grey_images(EXAMPLES), grey_images(0), settings(**halved, **changes), stochastic=True, batch=BATCH,
            seed=11, folder=Folder(folder), beta_warmup_epochs=warm_up, team=Team(devices),
            stop_requested=lambda: stop(model),
        )  # fmt: skip
    except training.StopRequested:
        pass
    assert model.jit_compile  # whatever it was trained with
    return variables(folder)


def variables(folder):
    arrays, state = checkpoints.load(Path(folder, "checkpoints"))
    return {name: values for name, values in arrays.items() if name != "log"} | {"updates": state["updates"]}


ON_TWO_DEVICES = """
import json, sys
sys.path.insert(0, {tests!r})
from iwae import bounds  # as where a bound of one's own is registered
from iwae import device
device.start_tensorflow(devices=2)
from test_shares import SHARES, train
for case, folder in json.loads(sys.argv[1]):
    train(folder, case, SHARES, devices=2)
"""


def train_on_two_devices(folders):
    """By (case, folder), in a process of its own: TensorFlow makes its devices when it starts."""
    program = ON_TWO_DEVICES.format(tests=str(Path(__file__).parent))
    jobs = json.dumps([(case, str(folder)) for case, folder in folders])
    ended = subprocess.run([sys.executable, "-c", program, jobs], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    return functools.cache(lambda case, shares: train(tmp_path_factory.mktemp("one"), case, shares))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


of_case = pytest.mark.parametrize(
    "case", [case if case in FEW else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)


@of_case
def test_shares_are_the_whole_batch(on_one_device, case):
    """The same images, noise and order: only the last bits differ, whatever is left for the last share."""
    whole, cut = on_one_device(case, 1), on_one_device(case, SHARES)
    assert whole["updates"] == cut["updates"] == 6
    weights = [name for name in whole if name.startswith("model/")]
    assert any(np.any(whole[name] != cut[name]) for name in weights)
    tolerance = 1e-4 if "rotated" in case else 1e-6  # the nearer two eigenvalues, the farther apart their axes
    for name in weights:
        np.testing.assert_allclose(cut[name], whole[name], rtol=tolerance, atol=tolerance, err_msg=name)


@on_two_cores
@pytest.mark.parametrize("cases", [FEW, pytest.param(sorted({*CASES} - {*FEW}), marks=pytest.mark.slow)])
def test_the_number_of_devices_changes_no_bit(tmp_path, on_one_device, cases):
    """Here a run is stopped after its first update, in the midst of an epoch, and continued on two instead of one."""
    folders = [(case, tmp_path / case) for case in cases]
    for case, folder in folders:
        assert train(folder, case, SHARES, stop=stop_when_asked(1))["updates"] == 1
    train_on_two_devices(folders)
    for case, folder in folders:
        assert_same(on_one_device(case, SHARES), variables(folder))


EVALUATED_ON_TWO_DEVICES = """
from iwae import bounds
from iwae import device
device.start_tensorflow(devices=2)
import numpy as np
from iwae import evaluation
from iwae.model import IWAE
from iwae.team import Team
model, images = IWAE(6, (3, 2), ((6, 4), (5,)), seed=11), np.random.default_rng(0).random((21, 6)) > 0.5
evaluation.batch_size = lambda *_: 5
units = [np.array([1, 0, 1], np.float32), np.ones(2, np.float32)]
one, two = (evaluation.importance_sample(model, images, 5, 3, (1, 2), units, None, Team(n)) for n in (1, 2))
assert one.keys() == two.keys() and len(one["elbo"]) == 21
for name in one:
    np.testing.assert_array_equal(one[name], two[name], name)
"""


@on_two_cores
@pytest.mark.slow
def test_the_number_of_devices_changes_no_bit_of_an_evaluation():
    ended = subprocess.run([sys.executable, "-c", EVALUATED_ON_TWO_DEVICES], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_more_devices_than_there_are_are_refused_before_anything_is_written(tmp_path):
    most = len(hardware.devices(1))
    with pytest.raises(config.ConfigError, match=f"^devices: expected at most {most}, .*, got 50$"):
        iwae.run(experiment(tmp_path, **{"training.shares": 50}), devices=50)
    with pytest.raises(config.ConfigError, match="^devices: expected a divisor of training.shares, 4, got 3$"):
        iwae.run(experiment(tmp_path, **{"training.shares": 4}), devices=3)
    assert not list(tmp_path.iterdir())
