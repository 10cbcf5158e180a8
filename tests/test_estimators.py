"""Gradient estimators and objectives: what they are on average, and to what others they come down."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from iwae import bounds, config, estimators, flows, layers, rng
from iwae.flows import SplineFlow
from iwae.model import IWAE

pytestmark = pytest.mark.slow  # averages over many draws, a minute or more on two cores

K, B, D = 3, 4, 7
LATENT = {1: ((2,), ((6, 5),)), 2: ((4, 2), ((6,), (5, 3))), 3: ((4, 3, 2), ((6,), (5,), (3,)))}
X = reference.binary(B, D)
OF_EXAMPLES = np.float32([0.1, 0.2, 0.3, 0.4])


def make(depth=1, **options):
    latent, hidden = LATENT[depth]
    parameters = {name: options.pop(name) for name in ("alpha", "groups", "mixture") if name in options}
    objective = bounds.get(options.pop("objective", "iwae"), **parameters)
    model = IWAE(D, latent, hidden, objective, **{"k": K, **options})
    reference.scramble(model, scale=0.6)  # weights of samples that differ by nats
    for variable in model.trainable_variables:
        if variable.path.endswith("shape/kernel"):  # of a flow, with a hundred inputs: parameters of about one
            variable.assign(variable / (6 * flows.GAIN))
    return model


def gradients(model, estimator=None, noise=None, seed=(0, 0)):
    """Bound and gradients by path for one draw of the noise."""
    function = estimators.get(estimator) if estimator else model.estimator
    noise = reference.noise(model.samples_per_example, B, model.latent_units) if noise is None else noise
    weights, uniform = tf.constant(OF_EXAMPLES), rng.uniform([B], seed)
    bound, values = function(model, model.objective, tf.constant(X), noise, weights, uniform)
    return bound, dict(zip((v.path for v in model.trainable_variables), values, strict=True))


def same(one, other, atol=1e-5):
    assert one.keys() == other.keys()
    for path, value in one.items():
        np.testing.assert_allclose(value, other[path], atol=atol, err_msg=path)


def of_encoder(values):
    return {path: value for path, value in values.items() if path.startswith("q_")}


def of_decoder(values):
    return {path: value for path, value in values.items() if path.startswith("p_")}


# ---- expectations ----

REPEATS = 8000


def averages(model, estimator, seed):
    """By path: the mean of the gradient over `REPEATS` draws of all noise, and its standard error."""
    function, variables = estimators.get(estimator), model.trainable_variables
    k = model.samples_per_example

    @tf.function(jit_compile=True)
    def compiled():
        def repeat(i, sums, squares):
            of_repeat = rng.fold(tf.constant([seed, 0]), i)
            noise = model.draw_noise(k, B, rng.fold(of_repeat, 0))
            weights, uniform = tf.constant(OF_EXAMPLES), rng.uniform([B], rng.fold(of_repeat, 1))
            _, values = function(model, model.objective, tf.constant(X), noise, weights, uniform)
            sums = [total + value for total, value in zip(sums, values, strict=True)]
            return i + 1, sums, [total + value**2 for total, value in zip(squares, values, strict=True)]

        zeros = [tf.zeros(v.shape) for v in variables]
        return tf.while_loop(lambda i, *_: i < REPEATS, repeat, (0, zeros, zeros))[1:]

    result = {}
    for variable, total, square in zip(variables, *compiled(), strict=True):
        mean = total.numpy() / REPEATS
        result[variable.path] = mean, np.sqrt((square.numpy() / REPEATS - mean**2) / (REPEATS - 1))
    return result


def deviations(one, other):
    """By path: the largest difference of two averages over an element of the tensor, in its standard errors."""
    result = {}
    for path, (mean, error) in one.items():
        other_mean, other_error = other[path]
        # what float32 loses in a sum of so many counts as an error too
        spread = np.sqrt(error**2 + other_error**2 + (1e-4 * np.abs(mean)) ** 2 + 1e-12)
        result[path] = np.max(np.abs(mean - other_mean) / spread)
    return result


# The largest of some 150 standard normal numbers is above 5 once in 10,000 times.
SURELY = 5


@pytest.fixture(scope="module")
def eq_14():
    """The averages of eq. 14 for one, two and three stochastic layers."""
    return {depth: averages(make(depth), "reparameterized", seed=depth) for depth in LATENT}


@pytest.mark.parametrize(
    ("estimator", "depth"), [("sampled", 1), ("sampled", 2), ("dreg", 1), ("dreg", 2), ("dreg", 3)]
)
def test_unbiased_estimators_have_the_expectation_of_eq_14(eq_14, estimator, depth):
    found = deviations(averages(make(depth), estimator, seed=8), eq_14[depth])
    assert max(found.values()) < SURELY, found


OTHERS = {"renyi": {"alpha": 0.5}, "miwae": {"groups": 2}, "piwae": {"groups": 2}, "ciwae": {"mixture": 0.3}}


@pytest.mark.parametrize("objective", OTHERS)
def test_dreg_of_other_bounds_has_the_expectation_of_the_plain_gradient(objective):
    model = make(2, objective=objective, **OTHERS[objective])
    one, other = (averages(model, name, seed) for seed, name in enumerate(("reparameterized", "dreg")))
    found = deviations(one, other)
    assert max(found.values()) < SURELY, found


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("objective", ["vae", "iwae"])
def test_dreg_through_the_inverse_of_a_flow_has_the_expectation_of_the_plain_gradient(objective, depth):
    model = make(depth, objective=objective, network=SplineFlow(2))
    one, other = (averages(model, name, seed) for seed, name in enumerate(("reparameterized", "dreg")))
    found = deviations(one, other)
    assert max(found.values()) < SURELY, found


@pytest.mark.parametrize("objective", OTHERS)
def test_dreg_of_other_bounds_trains_in_fit_where_batches_may_be_cut_short(objective):
    model = make(2, objective=objective, estimator="dreg", **OTHERS[objective])
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    x = np.random.default_rng(0).integers(0, 2, (5, D)).astype(np.float32)
    assert np.isfinite(model.fit(x, batch_size=2, verbose=0).history["bound"]).all()


def test_sticking_the_landing_is_biased_for_the_encoder_alone(eq_14):
    """Tucker et al. 2018, section 3: for k > 1 the expectation of the term that it leaves out is not zero."""
    found = deviations(averages(make(), "sticking_the_landing", seed=8), eq_14[1])
    assert max(of_decoder(found).values()) < SURELY
    assert max(of_encoder(found).values()) > 3 * SURELY


@pytest.mark.parametrize("depth", LATENT)
def test_sticking_the_landing_is_unbiased_for_the_vae(depth):
    model = make(depth, objective="vae")
    one, other = (averages(model, name, seed) for seed, name in enumerate(("reparameterized", "sticking_the_landing")))
    assert max(deviations(one, other).values()) < SURELY


def test_the_analytic_divergence_leaves_the_expectation_of_the_gradient_as_it_is():
    one, other = (
        averages(make(objective=name), "reparameterized", i) for i, name in enumerate(("vae", "vae_analytic_kl"))
    )
    assert max(deviations(one, other).values()) < SURELY


# ---- what is exact for each draw of the noise ----


@pytest.mark.parametrize("depth", LATENT)
def test_the_sampled_gradient_given_its_samples_has_the_expectation_of_eq_14(depth, monkeypatch):
    """The exact expectation: the sum over every choice of one sample an example, times its probability."""
    model = make(depth)
    noise = reference.noise(K, B, model.latent_units)
    log_weights = reference.log_weights(reference.weights_of(model), X, noise)
    normalized = np.exp(log_weights - log_weights.max(axis=0))
    normalized /= normalized.sum(axis=0)
    bound, expected = gradients(model, "reparameterized", noise)
    total = dict.fromkeys(expected, 0.0)
    for choice in itertools.product(range(K), repeat=B):
        monkeypatch.setattr(estimators, "draw_index", lambda *_, choice=choice: tf.constant(choice))
        value, chosen = gradients(model, "sampled", noise)
        probability = np.prod(normalized[choice, range(B)])
        total = {path: total[path] + probability * gradient.numpy() for path, gradient in chosen.items()}
        np.testing.assert_allclose(value, bound, rtol=1e-6)  # all k samples are in the bound it reports
    same(total, expected)


def test_an_index_is_drawn_with_its_normalized_weight():
    n = 100_000
    log_weights = np.float32([-1000, -1001, -1003, -np.inf, -1000.5])
    repeated = tf.constant(np.repeat(log_weights[:, None], n, axis=1))
    counts = np.bincount(estimators.draw_index(repeated, rng.uniform([n], (3, 4))), minlength=5)
    p = np.exp(log_weights + 1000) / np.exp(log_weights + 1000).sum()
    assert counts.sum() == n and counts[3] == 0
    assert np.all(np.abs(counts - n * p) <= 4.5 * np.sqrt(n * p * (1 - p)))


def test_an_only_sample_is_always_drawn():
    uniform = tf.constant([0.0, 0.5, 0.99])
    np.testing.assert_array_equal(estimators.draw_index(tf.constant([[0.0, -1e30, 50.0]]), uniform), 0)


@pytest.mark.parametrize("estimator", ["sticking_the_landing", "dreg"])
def test_the_decoder_s_gradient_is_the_same_without_the_score_of_q(estimator):
    model = make()
    (bound, expected), (other, found) = gradients(model, "reparameterized"), gradients(model, estimator)
    np.testing.assert_allclose(other, bound, rtol=1e-6)
    same(of_decoder(found), of_decoder(expected))
    encoder = of_encoder(found)
    assert all(np.abs(encoder[path] - expected[path]).max() > 1e-3 for path in encoder)


@pytest.mark.parametrize("depth", LATENT)
def test_dreg_is_its_formula(depth):
    """sum_i w~_i^2 (d log w_i / d z_i) (d z_i / d phi), from derivatives of each log weight taken one by one.

    log w is a function of all layers of z_i here, q's parameters held fixed; z_i is the function of phi that draws it.
    """
    model = make(depth)
    noise = reference.noise(K, B, model.latent_units)
    fixed = [tf.constant(z) for z in model.log_weight_terms(tf.constant(X), noise).samples]
    with tf.GradientTape() as tape:
        tape.watch(fixed)
        log_weights = log_weights_at(model, fixed)
    of_z = tape.gradient(log_weights, fixed)  # each log weight depends on its own z alone
    with tf.GradientTape(persistent=True) as tape:
        drawn = model.log_weight_terms(tf.constant(X), noise).samples
    squared = bounds.normalized_weights(log_weights).numpy() ** 2 * OF_EXAMPLES
    expected = dict.fromkeys((variable.path for variable in model.encoder_variables), 0.0)
    for z, gradient in zip(drawn, of_z, strict=True):
        for path, jacobian in zip(expected, tape.jacobian(z, model.encoder_variables), strict=True):
            if jacobian is not None:  # of a layer above this one
                expected[path] = expected[path] + np.einsum("kb,kbd,kbd...->...", squared, gradient, jacobian)
    same(of_encoder(gradients(model, "dreg", noise)[1]), expected)


def log_weights_at(model, z):
    """log p(x, z) - log q(z | x) at given z_l [K, B, D_l], from the layers one by one: [K, B]."""
    total = model.log_likelihood(tf.constant(X), z[0]) + layers.standard_gaussian_log_prob(z[-1])
    for i, below in enumerate([tf.tile(X[None], [K, 1, 1]), *z[:-1]]):
        total -= layers.gaussian_log_prob(z[i], *on_samples(model.encoder[i], below))
    for i, above in enumerate(z[1:]):
        total += layers.gaussian_log_prob(z[i], *on_samples(model.decoder[i + 1], above))
    return total


def on_samples(layer, inputs):
    flat = layer(tf.reshape(inputs, [K * B, -1]))
    return [tf.reshape(values, [K, B, -1]) for values in flat]


@pytest.mark.parametrize("depth", LATENT)
def test_with_one_sample_dreg_is_sticking_the_landing(depth):
    model = make(depth, k=1)
    same(gradients(model, "dreg")[1], gradients(model, "sticking_the_landing")[1])


def test_the_exact_posterior_leaves_nothing_to_the_encoder():
    """Where q is the posterior, the gradients without the score term are zero for each draw of the noise."""
    exact = reference.LinearGaussian(1)
    for estimator in ("sticking_the_landing", "dreg"):
        noise = reference.noise(K, len(exact.x), (3,))
        weights = tf.fill([len(exact.x)], 1 / len(exact.x))
        x = tf.constant(exact.x)
        _, values = estimators.get(estimator)(exact.model, exact.model.objective, x, noise, weights, weights)
        for variable, value in zip(exact.model.trainable_variables, values, strict=True):
            if variable.path.startswith("q_"):
                np.testing.assert_allclose(value, 0, atol=1e-4, err_msg=f"{estimator}: {variable.path}")


# ---- objectives that come down to others ----


def test_renyi_of_order_zero_is_the_iwae_and_of_order_one_the_vae():
    renyi, iwae, vae = (gradients(make(**o)) for o in ({"objective": "renyi", "alpha": 0.0}, {}, {"objective": "vae"}))
    np.testing.assert_allclose(renyi[0], iwae[0], rtol=1e-6)
    same(renyi[1], iwae[1])
    # In float32 1 - alpha = 1e-3 leaves four digits of the bound; the distance from the limit is of that order too.
    near_one, gradient = gradients(make(objective="renyi", alpha=0.999))
    np.testing.assert_allclose(near_one, vae[0], rtol=1e-3)
    same(gradient, vae[1], atol=2e-2)


@pytest.mark.parametrize("objective", ["miwae", "piwae"])
def test_with_one_group_miwae_and_piwae_are_the_iwae(objective):
    (bound, found), (expected_bound, expected) = gradients(make(objective=objective)), gradients(make())
    np.testing.assert_allclose(bound, expected_bound, rtol=1e-6)
    same(found, expected)


def test_miwae_is_the_iwae_averaged_over_groups():
    groups = 5
    model, single = make(objective="miwae", groups=groups), make()
    noise = reference.noise(K * groups, B, model.latent_units)
    bound, found = gradients(model, noise=noise)
    # Sample i of group g is number i * groups + g; which are together does not matter to the expectation.
    parts = [gradients(single, noise=[values[g::groups] for values in noise]) for g in range(groups)]
    np.testing.assert_allclose(bound, np.mean([part[0] for part in parts]), rtol=1e-5)
    same(found, {path: np.mean([part[1][path] for part in parts], axis=0) for path in found})


def test_piwae_trains_the_encoder_as_miwae_and_the_decoder_as_an_iwae_of_all_samples():
    groups = 5
    noise = reference.noise(K * groups, B, LATENT[2][0])
    piwae, miwae = (make(2, objective=name, groups=groups) for name in ("piwae", "miwae"))
    bound, found = gradients(piwae, noise=noise)
    expected_bound, of_all = gradients(make(2, k=K * groups), noise=noise)
    np.testing.assert_allclose(bound, expected_bound, rtol=1e-6)
    same(of_decoder(found), of_decoder(of_all))
    same(of_encoder(found), of_encoder(gradients(miwae, noise=noise)[1]))


@pytest.mark.parametrize(("mixture", "objective"), [(0.0, "iwae"), (1.0, "vae")])
def test_ciwae_has_the_iwae_and_the_vae_at_its_ends(mixture, objective):
    found, expected = gradients(make(objective="ciwae", mixture=mixture)), gradients(make(objective=objective))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    same(found[1], expected[1])


def test_the_analytic_divergence_is_that_of_gaussians():
    """KL(N(m, s^2) || N(0, 1)) by quadrature over each latent unit, with m and s from the NumPy twin of the network."""
    model = make(objective="vae_analytic_kl")
    terms = model.log_weight_terms(tf.constant(X), reference.noise(K, B, (2,)))
    found = terms.log_likelihood - model.training_log_weights(terms, model.objective)
    weights = reference.weights_of(model)
    mean = reference.network(weights, "q_z1", "mean", X)
    log_std = reference.network(weights, "q_z1", "log_std", X)
    u = np.linspace(-8, 8, 801)
    z = mean[..., None] + np.exp(log_std[..., None]) * u
    log_ratio = -(u**2) / 2 - log_std[..., None] + z**2 / 2
    expected = np.sum(np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi) * log_ratio, axis=-1) * (u[1] - u[0])
    np.testing.assert_allclose(found, np.broadcast_to(expected.sum(axis=-1), (K, B)), rtol=1e-4)


def test_an_objective_of_the_user_trains(monkeypatch):
    """One class and one registration; its parameter is taken from the model's of the same name."""
    monkeypatch.setattr(config, "OBJECTIVES", dict(config.OBJECTIVES))
    monkeypatch.setattr(bounds, "_REGISTERED", dict(bounds._REGISTERED))

    @bounds.register("power", "mean of the log weights to a power, for this test")
    @dataclasses.dataclass(frozen=True)
    class Power:
        alpha: float = 0.5

        def __call__(self, log_weights):
            return self.alpha * tf.reduce_mean(log_weights, axis=0)

    assert config.OBJECTIVES["power"] == "mean of the log weights to a power, for this test"
    assert config.Model(objective="power", alpha=3).objective == "power"
    (bound, found), (of_vae, expected) = gradients(make(objective="power", alpha=3.0)), gradients(make(objective="vae"))
    np.testing.assert_allclose(bound, 3 * of_vae, rtol=1e-6)
    same(found, {path: 3 * value for path, value in expected.items()}, atol=1e-4)
    model = make(objective="power", alpha=3.0)
    model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    history = model.fit(X, batch_size=B, epochs=20, verbose=0).history["bound"]
    assert np.mean(history[-5:]) > np.mean(history[:5]) + 1


@pytest.mark.parametrize("name", sorted(config.BUILT_IN_OBJECTIVES))
def test_every_objective_trains(name):
    model = make(objective=name)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    model.fit(X, batch_size=B, epochs=1, verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.all(np.isfinite(variable)) and np.any(variable.numpy() != value), variable.path


@pytest.mark.parametrize("depth", LATENT)
def test_dreg_of_the_elbo_is_sticking_the_landing(depth):
    model = make(depth, objective="vae")
    same(gradients(model, "dreg")[1], gradients(model, "sticking_the_landing")[1])


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [("sampled", "vae"), ("sampled", "piwae"), ("sticking_the_landing", "renyi"), ("dreg", "vae_analytic_kl")],
)
def test_an_estimator_that_is_none_for_an_objective_is_refused(estimator, objective):
    with pytest.raises(ValueError, match=f"^estimator: expected '{estimator}' with "):
        make(objective=objective, estimator=estimator)


def test_dreg_of_a_bound_without_curvature_is_refused():
    with pytest.raises(ValueError, match="^estimator: expected 'dreg' with a bound that has a curvature, "):
        IWAE(D, objective=lambda log_weights: log_weights[0], estimator="dreg")


def test_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match=r"^model\.estimator: expected one of reparameterized, .*got 'guess'$"):
        estimators.get("guess")
