"""Synthetic data of known density: quadrature, stable starts, the exact log density; a run that continues another."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import iwae
from iwae import batches, config, evaluation
from iwae.cli import presets
from iwae.config import Experiment
from iwae.data import loading
from iwae.diagnostics import quadrature
from iwae.model import IWAE
from iwae.report import records as report_records
from iwae.report import tables

# ---- quadrature ----


def linear_model(slope: float, shift: float, noise: float) -> IWAE:
    """p(x | z) = N(slope z + shift, noise^2)."""
    model = IWAE(1, (1,), ((),), likelihood="gaussian")
    layer = model.decoder[0]
    layer.mean.kernel.assign([[slope]])
    layer.mean.bias.assign([shift])
    layer.log_std.kernel.assign([[0.0]])
    layer.log_std.bias.assign([np.log(noise)])
    return model


@pytest.mark.parametrize(("slope", "shift", "noise"), [(1.5, -0.3, 0.4), (0.0, 2.0, 1.0), (-40.0, 0.0, 0.5)])
def test_a_linear_model_has_the_normal_density_and_posterior(slope: float, shift: float, noise: float) -> None:
    model, x = linear_model(slope, shift, noise), np.linspace(-3, 4, 57)
    scale = np.hypot(slope, noise)
    exact = stats.norm(shift, scale)
    np.testing.assert_allclose(quadrature.log_marginal(model, x), exact.logpdf(x), atol=1e-4)  # float32 parameters
    result = quadrature.one_dimensional(model, x, posterior_x=0.7)
    np.testing.assert_allclose(result.model_density, exact.pdf(x), rtol=1e-4)
    posterior = stats.norm(slope * (0.7 - shift) / scale**2, noise / scale)
    np.testing.assert_allclose(result.posterior, posterior.pdf(result.z), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.decoder_mean, slope * result.z + shift, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.decoder_scale, noise, rtol=1e-5)


def test_q_is_that_of_the_encoder() -> None:
    model, x = IWAE(1, (1,), ((4, 3),), likelihood="gaussian", seed=3), np.linspace(-3, 3, 11)
    result = quadrature.one_dimensional(model, x, posterior_x=x[2])
    mean, log_std = model.encoder[0](x[:, None].astype(np.float32))
    np.testing.assert_allclose(result.encoder_mean, mean[:, 0], rtol=1e-6)
    np.testing.assert_allclose(result.encoder_scale, np.exp(log_std[:, 0]), rtol=1e-6)
    expected = stats.norm(mean[2, 0], np.exp(log_std[2, 0])).pdf(result.z)
    np.testing.assert_allclose(result.q, expected, rtol=1e-5, atol=1e-8)


def test_quadrature_agrees_with_importance_sampling() -> None:
    """Within 5 standard errors of L_k, (1 / ESS - 1 / k)^(1/2), and its bias, of the order of their square."""
    model, k = IWAE(1, (1,), ((6, 5),), likelihood="gaussian", seed=1), 5000
    x = np.linspace(-2, 2, 7)
    sampled = evaluation.importance_sample(model, x[:, None].astype(np.float32), k, seed=0, bounds_at=())
    variance = 1 / sampled["effective_sample_size"] - 1 / k
    tolerance = 5 * np.sqrt(variance) + variance + 1e-5
    difference = sampled["log_likelihood_bound"] - quadrature.log_marginal(model, x)
    assert np.all(np.abs(difference) < tolerance) and tolerance.max() < 0.1


def test_the_density_and_the_posterior_integrate_to_one() -> None:
    model = IWAE(1, (1,), ((5, 5),), likelihood="gaussian", seed=2)
    x = np.linspace(-30, 30, 3001)
    assert np.exp(quadrature.log_marginal(model, x)).sum() * 0.02 == pytest.approx(1, abs=1e-5)
    result = quadrature.one_dimensional(model, x, 0.3, reach=8)
    assert result.posterior.sum() * (result.z[1] - result.z[0]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ((1, (1,), ((3,),), "gaussian"), True),
        ((2, (1,), ((3,),), "gaussian"), False),
        ((1, (2,), ((3,),), "gaussian"), False),
        ((1, (1, 1), ((3,), (3,)), "gaussian"), False),
        ((1, (1,), ((3,),), "bernoulli"), False),
    ],
)
def test_for_which_models_there_is_quadrature(model: tuple, expected: bool) -> None:
    dimension, latent, hidden, likelihood = model
    assert quadrature.applies(IWAE(dimension, latent, hidden, likelihood=likelihood)) is expected


# ---- the start of training ----


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name.startswith("camel") else pytest.mark.slow)
        for name in presets.GROUPS["synthetic"][1::2]
    ],
)
def test_a_gaussian_decoder_starts_stable_with_every_seed(name: str) -> None:
    """Twenty seeds of data, weights and noise; one function is compiled for all, and fed with each seed's values."""
    preset, updates, examples = presets.PRESETS[name], 50, 500

    def fresh(seed: int) -> tuple[IWAE, np.ndarray]:
        data = loading.load_dataset(preset.data.name, seed=seed, synthetic_examples=examples)
        sizes = {"latent_units": preset.model.latent_units, "hidden_units": preset.model.hidden_units}
        scale = {"data_moments": (data.train_mean, data.train_std)}
        model = IWAE(data.train.shape[1], **sizes, **scale, k=preset.model.k, likelihood="gaussian", seed=seed)
        return model, data.train

    model, images = fresh(0)
    model.hold(batches.ResidentImages(images, stochastic=False))
    model.images.values = tf.Variable(images)
    model.seed = tf.Variable(0)
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    start = [variable.numpy() for variable in model.optimizer.variables]
    bounds = []
    for seed in range(20):
        other, images = fresh(seed)
        model.images.values.assign(images)
        model.seed.assign(seed)
        for mine, theirs in zip(model.variables[: len(other.variables)], other.variables, strict=True):
            mine.assign(theirs)
        for variable, value in zip(model.optimizer.variables, start, strict=True):
            variable.assign(value)
        block = np.random.default_rng(seed).integers(0, examples, (updates, 20)).astype(np.int32)
        logs = model.train_on_batch(block, return_dict=True)
        model.reset_metrics()
        assert logs["nonfinite_update"] == 0
        assert all(np.isfinite(variable).all() for variable in model.trainable_variables)
        bounds.append(logs["bound"])
    # A normal density fitted to the data has about this bound; a start at another scale is tens of nats below.
    fitted = stats.multivariate_normal(images.mean(axis=0), np.atleast_2d(np.cov(images.T))).logpdf(images).mean()
    assert min(bounds) > fitted - 5


# ---- a whole run ----

TINY = Experiment(
    "camel",
    data=config.Data(name="camel", binarization="none", synthetic_examples=60),
    model=config.Model(k=3, latent_units=(1,), hidden_units=((4,),), likelihood="gaussian"),
    training=config.Training(stages=1),
    evaluation=config.Evaluation(k=10, examples=25),
)


@pytest.mark.slow
def test_the_true_log_density_is_beside_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = iwae.run(config.replace(TINY, {"results_dir": str(tmp_path)}))
    data = loading.load_dataset("camel", seed=123, synthetic_examples=60)
    assert data.log_density is not None
    exact = data.log_density(data.test[evaluation.spread(60, 25)]).mean()
    written = json.loads((tmp_path / "camel" / "evaluation.json").read_text())
    assert written["test"]["true_log_likelihood"] == pytest.approx(exact, abs=1e-6)
    assert written["test"]["nll"] > 0.5 and run.evaluation == written
    assert f"test: the true density gives {-exact:.3f} nats on the same data" in capsys.readouterr().out
    assert (tmp_path / "camel" / "plots" / "one_dimensional.png").exists()


@pytest.mark.slow
def test_a_continued_run_goes_from_the_weights_of_the_first_to_the_report(tmp_path: Path) -> None:
    """As in table 2. A learning rate of nearly zero shows the weights at which training starts."""
    common = {"results_dir": str(tmp_path), "evaluation.remove_inactive_units": False}
    first = config.replace(TINY, {**common, "name": "first", "tasks": ["train"], "model.objective": "vae"})
    other = {
        "name": "then",
        "tasks": ["train", "evaluate"],
        "training.schedule": "constant",
        "training.epochs": 1,
        "training.learning_rate": 1e-10,
        "training.start_from": first.run_dir,
    }
    then = config.replace(TINY, common | other)
    with pytest.raises(iwae.RunError, match=r"experiment\.json: expected the parameters of a run, found none"):
        iwae.run(then)
    before = iwae.run(first).model
    after = iwae.run(then)
    for one, two in zip(before.trainable_variables, after.model.trainable_variables, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert after.experiment.model.objective == "iwae"

    records, problems = report_records.find([], tmp_path)
    assert problems == [] and "| vae, k = 3 |" in tables.tables(records, tmp_path)
    (tmp_path / "first" / "model.weights.h5").unlink()
    iwae.load_run(tmp_path / "then")  # needs the first run no more
    anew = config.replace(then, {"name": "anew"})
    with pytest.raises(iwae.RunError, match=r"training\.start_from: expected a finished run, with .*, found none"):
        iwae.run(anew)


@pytest.mark.slow
def test_the_camel_is_learnt_as_well_as_its_own_density(tmp_path: Path) -> None:
    """The preset reaches L_5000 >= -1.37; the VAE stays visibly below. On the same data the truth is -1.36."""
    results = {}
    for name in ("camel_iwae_k20", "camel_vae_k20"):
        default = Experiment("default", tasks=("train", "evaluate"), results_dir=str(tmp_path))
        experiment = config.replace(presets.experiment(name, default), {"evaluation.remove_inactive_units": False})
        results[name] = iwae.run(experiment).evaluation["test"]
    assert -results["camel_iwae_k20"]["nll"] >= -1.37
    assert results["camel_vae_k20"]["nll"] > results["camel_iwae_k20"]["nll"] + 0.1
