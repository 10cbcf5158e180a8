"""Schedule, order, binarization; that neither blocks nor interruptions change a run; what stops one."""

import collections
import itertools
import math
import os
import platform
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
import tiny

import iwae
from iwae import batches, bounds, callbacks, config, device, hardware, nonfinite, schedule, training
from iwae.config import ConfigError
from iwae.model import IWAE
from iwae.runs import checkpoints, log
from iwae.runs.folder import Folder

# ---- schedule ----


def test_the_paper_s_schedule():
    """Stages of 1, 3, 9, ..., 2187 epochs, 3280 in all, at 0.001 * 10^(-i/7)."""
    settings = config.Training()
    assert settings.passes == 3280
    rates = [schedule.learning_rate(settings, epoch) for epoch in range(3280)]
    stages = [(rate, len(list(group))) for rate, group in itertools.groupby(rates)]
    assert [length for _, length in stages] == [1, 3, 9, 27, 81, 243, 729, 2187]
    np.testing.assert_allclose([rate for rate, _ in stages], 0.001 * 10 ** (-np.arange(8) / 7), rtol=1e-12)
    assert rates[0] == 1e-3 and rates[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize("stage", range(1, 8))
def test_rates_on_both_sides_of_each_border(stage):
    first = sum(3**i for i in range(stage))
    before, after = (schedule.learning_rate(config.Training(learning_rate=0.5), epoch) for epoch in (first - 1, first))
    assert before == pytest.approx(0.5 * 10 ** (-(stage - 1) / 7)) and after == pytest.approx(0.5 * 10 ** (-stage / 7))


def test_other_schedules():
    constant = config.Training(schedule="constant", epochs=9, learning_rate=0.02)
    assert constant.passes == 9
    assert [schedule.learning_rate(constant, epoch) for epoch in (0, 8)] == [0.02, 0.02]
    steps = config.Training(schedule="multistep", epochs=9, learning_rate=0.02, milestones=(2, 5), gamma=0.1)
    rates = [schedule.learning_rate(steps, epoch) for epoch in range(9)]
    np.testing.assert_allclose(rates, [0.02] * 2 + [0.002] * 3 + [0.0002] * 4)
    assert config.Training(stages=4).passes == 40
    assert config.Training(stages=4, epochs=7).passes == 7


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_cosine_rises_if_told_to_and_ends_at_zero(warmup):
    settings = config.Training(schedule="cosine", epochs=10, learning_rate=0.02, warmup_epochs=warmup)
    updates = 7
    rates = np.array([schedule.cosine(settings, updates)(i) for i in range(10 * updates + 1)])
    start = warmup * updates
    np.testing.assert_allclose(rates[: start + 1], np.linspace(0 if warmup else 0.02, 0.02, start + 1), rtol=1e-5)
    falling = 0.01 * (1 + np.cos(np.pi * np.arange(10 * updates + 1 - start) / (10 * updates - start)))
    np.testing.assert_allclose(rates[start:], falling, atol=1e-8)
    assert settings.passes == 10


# ---- order ----


def epoch_of(examples, batch, rows, epoch=0, first_update=0):
    """The blocks of one epoch, one after the other: [updates, batch]."""
    blocks = batches.index_blocks(examples, batch, rows, 5, epoch, first_update)
    count = batches.blocks_per_epoch(examples, batch, rows, first_update)
    taken = [block for (block,) in itertools.islice(blocks, count)]
    assert [len(block) for block in taken[:-1]] == [rows] * (count - 1) and 0 < len(taken[-1]) <= rows
    assert all(block.shape[1:] == (batch,) and block.dtype == np.int32 for block in taken)
    return np.concatenate(taken)


@pytest.mark.parametrize(("examples", "batch", "rows"), [(23, 5, 2), (23, 5, 5), (20, 5, 4), (20, 5, 3), (3, 3, 1)])
def test_an_epoch_has_each_example_once_and_padding_at_its_end(examples, batch, rows):
    order = epoch_of(examples, batch, rows).ravel()
    assert sorted(order[:examples]) == list(range(examples))
    assert np.all(order[examples:] == -1)
    assert len(order) == math.ceil(examples / batch) * batch  # no batch of padding alone


def test_the_order_is_that_of_seed_and_epoch_alone():
    whole = epoch_of(23, 5, 5, epoch=2)
    for rows in (1, 2, 3, 7):
        np.testing.assert_array_equal(epoch_of(23, 5, rows, epoch=2), whole)
    assert not np.array_equal(whole, epoch_of(23, 5, 5, epoch=3))
    (other_seed,) = next(batches.index_blocks(23, 5, 5, 6, 2))
    assert not np.array_equal(whole, other_seed)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_the_order_goes_on_after_any_update(rows):
    whole = epoch_of(23, 5, 5, epoch=2)
    for done in range(5):
        rest = epoch_of(23, 5, rows, epoch=2, first_update=done)
        np.testing.assert_array_equal(rest, whole[done:])
    blocks = batches.index_blocks(23, 5, rows, 5, 2, 3)
    for _ in range(batches.blocks_per_epoch(23, 5, rows, 3)):
        next(blocks)
    np.testing.assert_array_equal(next(blocks)[0], epoch_of(23, 5, rows, epoch=3)[:rows])  # and in the next epoch


@pytest.mark.parametrize(
    ("updates", "wanted", "rows"), [(2980, 100, 149), (3000, 100, 100), (81, 100, 81), (2999, 100, 100), (5, 2, 2)]
)
def test_an_epoch_is_whole_blocks_if_it_can_be(updates, wanted, rows):
    assert batches.rows_of_blocks(updates, wanted) == rows


# ---- binarization ----


def drawn(grey, seed=(1, 2), n=20_000):
    """n drawings of one image of these grey values, inside XLA as in training: [n, D]."""
    resident = batches.ResidentImages(np.float32([np.zeros_like(grey), grey]), stochastic=True)
    batch = tf.function(resident.batch, jit_compile=True)
    return batch(tf.ones([n], tf.int32), tf.constant(seed)).numpy()


def test_binarized_pixels_have_their_mean_and_are_independent():
    grey, n = np.float32([0, 0.001, 0.2, 0.5, 0.7, 0.999, 1]), 20_000
    pixels = drawn(grey, n=n)
    assert pixels.shape == (n, 7) and pixels.dtype == np.float32 and set(np.unique(pixels)) == {0.0, 1.0}
    error = np.sqrt(grey * (1 - grey) / n)
    assert np.all(np.abs(pixels.mean(axis=0) - grey) <= 4.5 * error + 2.0**-16)  # 2^-16: grey values have 15 bits
    correlation = np.corrcoef(pixels[:, 2:5].T)[np.triu_indices(3, 1)]  # pixels 2, 3 and 4: two share a random word
    assert np.all(np.abs(correlation) < 4.5 / math.sqrt(n))
    after = np.corrcoef(pixels[:-1, 3], pixels[1:, 3])[0, 1]
    assert abs(after) < 4.5 / math.sqrt(n)


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_black_and_white_pixels_stay_so(grey):
    """In 2,020,000 draws: one of the 2^15 thresholds on the wrong side would show some 60 times."""
    assert np.all(drawn(np.full(101, grey, np.float32)) == grey)


def test_binarization_is_anew_each_time_and_that_of_its_seed():
    grey = np.full(7, 0.5, np.float32)
    first = drawn(grey)
    np.testing.assert_array_equal(first, drawn(grey))
    agreement = np.mean(first == drawn(grey, seed=(1, 3)))
    assert abs(agreement - 0.5) < 4.5 * 0.5 / math.sqrt(first.size)


@pytest.mark.parametrize("values", [[[0, 1], [1, 1], [0, 0]], [[-1.5, 300], [2, 0.25], [1, 1e-6]]])
def test_other_images_stay_as_they_are(values):
    values = np.float32(values)
    batch = batches.ResidentImages(values, stochastic=False).batch(tf.constant([2, 0]), tf.constant([0, 0]))
    assert batch.dtype == tf.float32
    np.testing.assert_array_equal(batch, values[[2, 0]])


# ---- training ----

EXAMPLES, D, BATCH, EPOCHS = 23, 7, 5, 4  # five updates an epoch, the last one of three examples


def grey_images(n=EXAMPLES, seed=0):
    """Two kinds of images, [n, D]."""
    random = np.random.default_rng(seed)
    means = np.float32([[0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.5], [0.1, 0.1, 0.1, 0.9, 0.9, 1.0, 0.0]])
    return np.clip(means[random.integers(0, 2, n)] + random.uniform(-0.1, 0.1, (n, D)), 0, 1).astype(np.float32)


def settings(**changes):
    return config.Training(
        **{"schedule": "constant", "epochs": EPOCHS, "learning_rate": 0.01, "updates_per_call": 2, **changes}
    )


def train(folder, watch=lambda model: False, valid=9, objective="iwae", beta=1.0, beta_warmup_epochs=0, **changes):
    """A model of the same seed, trained, and its log. `watch` is called when training asks whether it is to stop."""
    model = IWAE(D, (2,), ((6, 4),), objective=objective, k=3, seed=11)
    try:
        training.train(
            model, grey_images(), np.round(grey_images(valid, seed=1)), settings(**changes), stochastic=True,
            batch=BATCH, seed=11, folder=Folder(folder), beta=beta, beta_warmup_epochs=beta_warmup_epochs,
            stop_requested=lambda: watch(model), image_shape=(1, D), parameters={"seed": 11, "path": None},
        )  # fmt: skip
    except training.StopRequested:
        pass
    return model, log.read(folder / "log.csv")


def assert_same(model, other):
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)
    for one, two in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)


def without_times(rows):
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its folder, model and log."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(folder)


def test_a_run_leaves_its_log_and_its_checkpoint(whole):
    folder, model, rows = whole
    assert (folder / "log.csv").read_text().splitlines()[0] == (
        "epoch,updates,learning_rate,train_bound,valid_bound,seconds,images_per_second"
    )
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["updates"] for row in rows] == [5, 10, 15, 20]
    assert all(row["learning_rate"] == pytest.approx(0.01) for row in rows)
    assert rows[-1]["train_bound"] > rows[0]["train_bound"] + 0.1
    assert rows[-1]["valid_bound"] > rows[0]["valid_bound"] + 0.1
    assert all(row["seconds"] > 0 and row["images_per_second"] > 0 for row in rows)
    arrays, state = checkpoints.load(folder / "checkpoints")
    assert state["epoch"] == 4 and state["updates"] == 20
    assert len(list((folder / "checkpoints").iterdir())) <= 4


def test_tensorboard_gets_the_curves_of_the_log(whole):
    folder, _, rows = whole
    (file,) = (folder / "tensorboard").iterdir()
    curves, pictures, parameters = collections.defaultdict(list), [], []
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            match value.metadata.plugin_data.plugin_name:
                case "images":
                    pictures.append((value.tag, event.step, tf.make_ndarray(value.tensor)))
                case "hparams":
                    parameters.append(value.metadata.plugin_data.content)
                case _:
                    curves[value.tag].append((event.step, float(tf.make_ndarray(value.tensor))))
    assert b"seed" in parameters[0] and b"None" in parameters[0]
    assert [(tag, step) for tag, step, _ in pictures] == [("samples", 1), ("samples", 2), ("samples", 4)]
    assert pictures[0][2].shape == (2 + 10,)  # width, height, and ten PNG files
    assert sorted(curves) == ["images_per_second", "learning_rate", "train_bound", "valid_bound"]
    for name, points in curves.items():
        assert points == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]


PAGE_FAULTS = """
import resource, sys
import numpy as np
from iwae import IWAE, config, training
from iwae.runs.folder import Folder
images = np.random.default_rng(0).random((4000, 784), np.float32)
model = IWAE(784, (50,), ((200, 200),), k=1, objective="vae")
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
seen = []
training.train(
    model, images, images[:0], config.Training(schedule="constant", epochs=4), stochastic=True, batch=20, seed=1,
    folder=Folder(sys.argv[1]), stop_requested=lambda: seen.append(faults()),
)
print((seen[-1] - seen[-5]) / 400)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library")
@pytest.mark.slow
def test_training_does_not_give_memory_back_and_ask_for_it_again(tmp_path):
    child = subprocess.run([sys.executable, "-c", PAGE_FAULTS, tmp_path], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 30  # page faults an update; 280 as glibc does it by itself


def test_adam_is_that_of_the_parameters(whole):
    _, model, _ = whole
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam) and not optimizer.amsgrad
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-4)


def test_blocks_of_updates_change_nothing(whole, tmp_path):
    """One update a call, with the same weights to the last bit as with two."""
    _, model, rows = whole
    other, other_rows = train(tmp_path, updates_per_call=1)
    assert_same(model, other)
    for one, two in zip(without_times(rows), without_times(other_rows), strict=True):
        assert one == pytest.approx(two, rel=1e-6)  # the mean over an epoch is added up in another order


def in_tf32():
    return tf.config.experimental.tensor_float_32_execution_enabled()


def test_updates_alone_are_in_tf32(whole, tmp_path, monkeypatch):
    """On a CPU it is of no effect; what is looked at is whether it is on where functions are traced and compiled."""
    found = collections.defaultdict(set)

    def noted(original, name):
        def function(*args, **kwargs):
            found[name].add(in_tf32())
            return original(*args, **kwargs)

        return function

    for owner, name in [
        (IWAE, "gradients_of_update"), (callbacks.Validation, "on_epoch_end"), (callbacks.Samples, "on_epoch_end"),
        (nonfinite.Watch, "on_train_batch_begin"), (nonfinite.Watch, "on_train_batch_end"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, noted(getattr(owner, name), name))
    model, _ = train(tmp_path / "tf32", tf32=True)
    assert found.pop("gradients_of_update") == {True}
    assert dict(found) == {"on_epoch_end": {False}, "on_train_batch_begin": {False}, "on_train_batch_end": {False}}
    assert_same(model, whole[1])
    with device.tf32(True):  # a user's own wish, which is not that of the run
        train(tmp_path / "full")
        assert found["gradients_of_update"] == {False} and in_tf32()
    assert not in_tf32()


def test_tf32_ends_with_a_training_that_fails(tmp_path, monkeypatch):
    def fail(*_):
        assert in_tf32()
        raise OSError("no more")

    monkeypatch.setattr(IWAE, "gradients_of_update", fail)
    with pytest.raises(OSError, match="no more"):
        train(tmp_path, tf32=True)
    assert not in_tf32()


def stop_when_asked(times):
    """Training asks after each block of an epoch and at its end: with blocks of two of five updates four times."""
    asked = itertools.count(1)
    return lambda model: next(asked) == times


COSINE = {"schedule": "cosine", "warmup_epochs": 1}
FEW_SAMPLES_FIRST = {"first_k": 2, "first_k_epochs": 2}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="constant", marks=pytest.mark.slow),
        pytest.param(COSINE, id="cosine"),
        pytest.param(FEW_SAMPLES_FIRST, id="few samples first", marks=pytest.mark.slow),
    ],
)
def test_a_continued_run_is_the_uninterrupted_one(whole, tmp_path, changes):
    """Weights, optimizer and log, after a stop within the first epoch and one at the end of the second."""
    model, rows = train(tmp_path / "whole", **changes) if changes else whole[1:]
    for times, updates in ((1, 2), (7, 10)):
        stopped, _ = train(tmp_path, stop_when_asked(times), **changes)
        assert int(stopped.optimizer.iterations) == updates
    continued, continued_rows = train(tmp_path, **changes)
    assert_same(model, continued)
    assert without_times(continued_rows) == without_times(rows)
    kept, expected = (Folder(of).read_samples() for of in (tmp_path, tmp_path / "whole" if changes else whole[0]))
    assert list(kept) == list(expected) == [1, 2, 4]
    np.testing.assert_array_equal(list(kept.values()), list(expected.values()))


def test_samples_of_another_length_of_training_are_not_kept(tmp_path):
    """What was the last epoch of a shorter one, or lies after the one from which it goes on."""
    folder, state = Folder(tmp_path), callbacks.State(EXAMPLES, BATCH, 2)
    folder.write_samples({1: np.zeros((10, D)), 3: np.ones((10, D)), 16: np.ones((10, D))})
    with callbacks.Curves(state, folder.tensorboard, {}) as curves:
        samples = callbacks.Samples(folder, 5, 11, (1, D), curves)
        samples.set_model(IWAE(D, (2,), ((6, 4),), k=3, seed=11))
        for epoch, kept in ((2, [1, 3, 16]), (3, [1, 4]), (4, [1, 4, 5]), (1, [1, 2])):
            samples.on_epoch_end(epoch)
            assert list(folder.read_samples()) == kept
        for damaged in (b"damaged", _with_a_byte_flipped(folder.samples.read_bytes())):
            folder.samples.write_bytes(damaged)
            samples.on_epoch_end(4)
            assert list(folder.read_samples()) == [5]
        folder.write_samples({1: np.zeros((10, D)), 2: np.zeros((10, D + 1))})
        assert folder.read_samples() == {}


def _with_a_byte_flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def test_names_of_files_that_are_no_text_reach_tensorboard_escaped(tmp_path):
    folder = Folder(tmp_path)
    with callbacks.Curves(callbacks.State(9, 3, 1), folder.tensorboard, {"data.path": os.fsdecode(b"/d/\xff")}):
        pass
    (file,) = folder.tensorboard.iterdir()
    assert rb"/d/\udcff" in file.read_bytes()


def test_a_failure_of_tensorboard_s_files_is_told_in_one_line(tmp_path):
    Folder(tmp_path).tensorboard.write_bytes(b"in the way")
    with pytest.raises(OSError, match=r"^\[Errno \d+\] Not a directory: '\S+tensorboard'$"):
        train(tmp_path)


@pytest.mark.slow
def test_the_first_epochs_have_fewer_samples(whole, tmp_path):
    """Two epochs are those of a run with two samples, the others are not; what is validated is L_3 throughout."""
    model, rows = train(tmp_path / "first", **FEW_SAMPLES_FIRST)
    _, few = train(tmp_path / "few", first_k=2, first_k_epochs=9)
    bounds = [[row["train_bound"] for row in of] for of in (rows, few)]
    assert bounds[0][:2] == bounds[1][:2] and bounds[0][2] > bounds[1][2]
    assert model.samples_per_example == 3
    assert rows[0]["valid_bound"] == few[0]["valid_bound"] != whole[2][0]["valid_bound"]


@pytest.mark.slow
def test_a_run_continues_with_blocks_of_another_length(whole, tmp_path):
    _, model, _ = whole
    stopped, _ = train(tmp_path, stop_when_asked(2), updates_per_call=1)
    assert int(stopped.optimizer.iterations) == 2
    continued, rows = train(tmp_path, updates_per_call=3)
    assert [row["updates"] for row in rows] == [5, 10, 15, 20]
    assert_same(model, continued)


def test_a_finished_run_is_left_as_it_is(whole):
    folder, model, rows = whole
    again, rows_again = train(folder)
    assert_same(model, again)
    assert rows_again == rows


def test_the_rate_of_the_cosine_is_that_of_each_update(tmp_path):
    _, rows = train(tmp_path, **COSINE)
    expected = schedule.cosine(settings(**COSINE), updates=5)
    np.testing.assert_allclose(
        [row["learning_rate"] for row in rows], [expected(5 * i) for i in (1, 2, 3, 4)], rtol=1e-6
    )
    assert rows[0]["learning_rate"] == pytest.approx(0.01) and rows[-1]["learning_rate"] == 0


def test_early_stopping_keeps_the_best_weights_and_says_so(tmp_path, capsys):
    """From the third epoch on the rate is too large, so the second one is the best. With a warm-up of beta."""
    seen = {}

    def watch(model):
        seen[int(model.optimizer.iterations)] = float(model.beta), [variable.numpy() for variable in model.variables]
        return False

    changes = {"schedule": "multistep", "milestones": (2,), "gamma": 50, "epochs": 9, "early_stopping_patience": 2}
    changes |= {"updates_per_call": 5, "objective": "vae", "beta": 2.0, "beta_warmup_epochs": 2}
    model, rows = train(tmp_path, watch, **changes)
    assert "\nstopped early, after epoch 4 of 9: the bound on validation" in capsys.readouterr().err
    assert len(rows) == 4 and np.argmax([row["valid_bound"] for row in rows]) == 1
    assert [beta for beta, _ in seen.values()] == [0, 1, 2, 2]
    for variable, best in zip(model.variables, seen[10][1], strict=True):
        np.testing.assert_array_equal(variable, best)
    again, rows_again = train(tmp_path, **changes)
    assert rows_again == rows
    for one, two in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_bound_that_is_not_finite_stops_the_run(tmp_path):
    """The rate of the second epoch is absurd: its first update ruins the weights, its second one has no bound."""
    changes = {"schedule": "multistep", "milestones": (1,), "gamma": 1e30}
    message = (
        r"the bound is not finite at update 7 \(epoch 2\); not finite first, at update 7: the samples z1; "
        r"try a training\.learning_rate smaller than 0\.01; with --name NAME and --accept-changes"
    )
    with pytest.raises(training.NonFiniteBound, match=message):
        train(tmp_path, valid=0, **changes)
    arrays, state = checkpoints.load(tmp_path / "checkpoints")
    assert state["updates"] == 5
    assert all(np.all(np.isfinite(values)) for name, values in arrays.items() if name != "log")
    (row,) = log.read(tmp_path / "log.csv")
    assert math.isfinite(row["train_bound"]) and math.isnan(row["valid_bound"])  # there are no validation examples


@pytest.mark.parametrize(
    "damage, changes, message",
    [
        ("a NaN", {}, "; the training data hold values that are not finite"),
        ("an infinite value", {}, "; the training data hold values that are not finite"),
        pytest.param(
            *("a scale of 1e30", {}, r"; the training data reach \d\.\d+e\+30: scale them to about 1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("nothing", {"learning_rate": 1e30}, r"; try a training\.learning_rate smaller than 1e\+30"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_injected_faults_are_told_with_update_tensors_and_advice(tmp_path, damage, changes, message):
    """Real numbers, of which one image is damaged; it is met in the first epoch, so within the first blocks."""
    data = np.random.default_rng(0).standard_normal((40, D)).astype(np.float32)
    model = IWAE(D, (2,), ((6, 4),), k=3, likelihood="gaussian", data_moments=(np.zeros(D), np.ones(D)), seed=11)
    data[17, 1] = {"a NaN": math.nan, "an infinite value": math.inf}.get(damage, data[17, 1])
    data *= 1e30 if "scale" in damage else 1
    with pytest.raises(training.NonFiniteBound, match=r"at update \d+ \(epoch 1\); not finite first.*" + message):
        training.train(
            model, data, data[:0], settings(**changes), stochastic=False, batch=4, seed=11, folder=Folder(tmp_path)
        )  # fmt: skip
    assert not log.read(tmp_path / "log.csv")


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = IWAE(D, (2,), ((4,),), k=3)
    model.compile(optimizer=keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    model.hold(batches.ResidentImages(grey_images(), stochastic=True))
    state = callbacks.State(EXAMPLES, BATCH, rows=2)
    keeper = callbacks.Checkpoints(model, state, tmp_path, 1, 60.0, lambda: False, "")
    keeper.save()
    watch = nonfinite.Watch(model, state, 11, settings())
    model.optimizer.iterations.assign(1)
    model.encoder[0].mean.bias.assign([0.0, math.nan])
    watch.on_train_batch_begin(0)
    with pytest.raises(callbacks.NonFiniteWeight, match="a weight is not finite after update 1") as caught:
        keeper.save()
    message = r"a weight is not finite after update 1 \(epoch 1\); not finite first, at update 1: q_z1/.*bias; try a "
    assert re.match(message, str(watch.error(str(caught.value))))
    assert checkpoints.load(tmp_path)[1]["updates"] == 0


def test_a_checkpoint_s_arrays_go_to_the_variables_of_their_names(tmp_path):
    """Whatever the order of the variables: two of one shape are not exchanged."""
    model, _ = train(tmp_path)
    state = callbacks.State(EXAMPLES, BATCH, rows=2)
    keeper = callbacks.Checkpoints(model, state, Folder(tmp_path).checkpoints, 1, 60.0, lambda: False, "")
    before = {variable.path: variable.numpy() for variable in model.variables}
    one, other = model.encoder[0].mean.bias, model.encoder[0].log_std.bias
    assert one.shape == other.shape and np.any(one.numpy() != other.numpy())

    class Reordered:
        """The model with these two exchanged in the list of its variables."""

        optimizer, bound_tracker = model.optimizer, model.bound_tracker
        variables = [{id(one): other, id(other): one}.get(id(variable), variable) for variable in model.variables]

    for variable in model.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    keeper._network = Reordered()
    keeper.restore()
    for variable in model.variables:
        np.testing.assert_array_equal(variable, before[variable.path], err_msg=variable.path)


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    train(tmp_path)
    other = IWAE(D, (3,), ((6, 4),), k=3)
    with pytest.raises(checkpoints.CheckpointError, match="expected a checkpoint of this model, got one that does not"):
        training.train(
            other, grey_images(), grey_images()[:0], settings(), stochastic=True, batch=BATCH, seed=1,
            folder=Folder(tmp_path),
        )  # fmt: skip


def bounds_of_epochs(model, images, stochastic):
    """Train bounds of four epochs of one update each that changes nothing."""
    model.hold(batches.ResidentImages(images, stochastic))
    model.compile(optimizer=keras.optimizers.Adam(1e-30), jit_compile=False, run_eagerly=True)
    blocks = batches.index_blocks(len(images), len(images), 1, seed=0)
    history = model.fit(blocks, epochs=4, steps_per_epoch=1, shuffle=False, verbose=0).history
    return np.array(history["bound"])


def test_each_update_has_noise_and_binarization_of_its_own():
    images = grey_images()
    noisy = bounds_of_epochs(IWAE(D, (2,), ((4,),), k=3), np.round(images), stochastic=False)
    assert len(np.unique(noisy)) == 4
    # With the exact posterior the bound is log p(x): it varies with the drawn pixels alone.
    np.testing.assert_allclose(np.ptp(bounds_of_epochs(reference.LinearGaussian(1).model, images, False)), 0, atol=1e-4)
    drawn_anew = bounds_of_epochs(reference.LinearGaussian(1).model, images, stochastic=True)
    assert np.diff(np.sort(drawn_anew)).min() > 1e-3


# ---- what is reported ----


def test_the_time_left_is_judged_without_the_end_of_the_first_epoch_which_compiles():
    seen = []

    class Bar:
        def forget(self):
            seen.append("forgotten")

        def update(self, step, **values):
            seen.append(step)

    state = callbacks.State(EXAMPLES, BATCH, rows=1, epoch=3, seconds=1.0)  # continued
    shown = callbacks.Progress(state, Bar())
    for state.epoch in (3, 4, 5):
        shown.on_epoch_begin(state.epoch)
        shown.on_train_batch_end(0, {"bound": -1.0})
    assert seen == [3 * state.updates, "forgotten", 4 * state.updates, 5 * state.updates]


def test_partial_batches_count_exactly(tmp_path):
    """With the exact posterior each bound is log p(x), whatever the noise: means must be those of all examples."""
    exact = reference.LinearGaussian(1, n=23 + 300)
    x, valid, log_p, log_p_valid = exact.x[:23], exact.x[23:], exact.log_p[:23].mean(), exact.log_p[23:].mean()
    options = {"stochastic": False, "batch": 5, "seed": 1, "folder": Folder(tmp_path)}
    training.train(exact.model, x, valid, settings(learning_rate=1e-10, epochs=1), **options)
    (row,) = log.read(tmp_path / "log.csv")
    assert row["train_bound"] == pytest.approx(log_p, abs=1e-4)
    assert row["valid_bound"] == pytest.approx(log_p_valid, abs=1e-4)  # 250 + 50 of them

    exact.model.compile(optimizer=keras.optimizers.Adam(1e-30), jit_compile=False)
    history = exact.model.fit(x, batch_size=5, verbose=0).history
    assert history["bound"] == [pytest.approx(log_p, abs=1e-4)]
    assert exact.model.evaluate(x, batch_size=5, verbose=0) == pytest.approx(log_p, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "bytes_a_sample"),
    [
        ({}, 8 * (5 + 6)),  # of the decoder's layers: five hidden units, six logits
        ({"latent_units": (2, 1), "hidden_units": ((5,), (3,))}, 8 * (3 + 1 + 1 + 3 + 2 + 2 + 5 + 6)),
        ({"estimator": "sampled"}, 4 * 6),
        ({"objective": bounds.Miwae(groups=3)}, 3 * 8 * (5 + 6)),
    ],
)
def test_an_update_that_cannot_fit_into_memory_is_refused(monkeypatch, changes, bytes_a_sample):
    """The largest k that may fit is told, and it does; the k after it does not."""
    settings = {"latent_units": (2,), "hidden_units": ((5,),), **changes}
    monkeypatch.setattr(hardware, "memory", lambda: 20 * 7 * bytes_a_sample)
    training.check_memory(IWAE(6, k=7, **settings), batch=20)
    with pytest.raises(ConfigError, match=r"model\.k: expected at most 7 with a batch of 20 and .* GiB .*, got 8"):
        training.check_memory(IWAE(6, k=8, **settings), batch=20)


def test_a_run_that_cannot_fit_into_memory_is_refused_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.k: expected at most [\d,]+ with a batch of 20"):
        iwae.run(tiny.experiment(tmp_path, **{"model.k": 2_000_000_000, "data.batch_size": 20}))
    assert not list(tmp_path.rglob("*.json"))
