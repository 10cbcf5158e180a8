"""Markov chains on the posterior of given images: annealed importance sampling and Hamiltonian Monte Carlo (HMC).

Both walk in the space of the noise of the generative network: e ~ N(0, I) holds a number for every unit of every
stochastic layer, z_L = e_L (of a conditional prior its mean + std e_L) and z_l = mean(z_{l+1}) + std(z_{l+1}) e_l, so
that, whatever the number of layers, the posterior is N(e; 0, I) p(x | z_1(e)) up to a factor. Between prior and
posterior lie N(e; 0, I) p(x | z_1(e))^beta with beta from 0 to 1.

Axis order [C, B, E]: chains, images, numbers in e.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special

from iwae import layers, progress, rng
from iwae.model import IWAE

SEGMENTS = 20  # of the way from prior to posterior: in each the step size is the same, and beta evenly spaced
LEAPFROG_STEPS = 5
TUNING_STEPS = 20  # of other chains, in each segment, to settle its step size
TUNING_CHAINS = 4
ACCEPTANCE = 0.65  # share of accepted proposals that step sizes are tuned to (Neal 2011, section 5.4.4.3)
JITTER = 0.7, 1.3  # between which step sizes are multiplied at random
IMAGES = 100  # whose chains walk at once

LogDensity = Callable[[tf.Tensor], tf.Tensor]  # of noise [C, B, E]: [C, B], nats


class Annealed(NamedTuple):
    """Where C chains for each of n images ended, with their weights."""

    log_weights: np.ndarray  # [C, n], nats
    states: np.ndarray  # [C, n, E]
    step_sizes: np.ndarray  # [segments, n], from the prior to the posterior


class Draws(NamedTuple):
    """Draws from the posterior of n images by C chains, and what says whether to trust them."""

    latents: list[np.ndarray]  # for each stochastic layer, from the data upwards: [draws, C, n, D_l]
    acceptance: np.ndarray  # [n], share of proposals that were accepted
    r_hat: np.ndarray  # [n], largest potential scale reduction over the numbers in e (Gelman & Rubin 1992): near 1


def schedule(segments: int = SEGMENTS, delta: float = 4.0) -> np.ndarray:
    """beta at the borders of the segments, from 0 to 1: a sigmoid, slower near both ends. -> [segments + 1]."""
    values = 1 / (1 + np.exp(-delta * np.linspace(-1, 1, segments + 1)))
    return ((values - values[0]) / (values[-1] - values[0])).astype(np.float32)


def latents(model: IWAE, noise: tf.Tensor, x: tf.Tensor | None = None) -> list[tf.Tensor]:
    """z_l for each stochastic layer, from the data upwards, of images x: noise [C, B, E] -> each [C, B, D_l].

    Of a model without a condition they do not depend on x, which may be None.
    """
    *lower, above = tf.split(noise, model.latent_units, axis=-1)
    z = [model.from_prior(above, x)]
    for decoder, epsilon in zip(model.decoder[:0:-1], lower[::-1], strict=True):
        mean, log_std = decoder(tf.reshape(z[0], [-1, z[0].shape[-1]]))
        z.insert(0, tf.reshape(mean, epsilon.shape) + tf.exp(tf.reshape(log_std, epsilon.shape)) * epsilon)
    return z


def sample(
    model: IWAE,
    images: np.ndarray,
    chains: int,
    steps: int,
    seed: int,
    posterior_draws: np.ndarray | None = None,
    step_sizes: np.ndarray | None = None,
    label: str | None = None,
) -> Annealed:
    """Annealed importance sampling (Neal 2001) for each image, forwards or backwards.

    The step sizes are settled by other chains first: were they tuned to the chains that count, the weights of these
    would be biased.

    Args:
        model: an `IWAE`.
        images: [n, D].
        chains: C.
        steps: temperatures between prior and posterior, rounded up to a multiple of the segments.
        seed: of all noise.
        posterior_draws: None: from draws of the prior to the posterior, where the mean of the weights is an unbiased
            estimate of p(x). Or [n, E], an exact draw of each image's posterior: from there to the prior, where it is
            one of 1 / p(x) (Grosse, Ghahramani & Adams 2015). Exact draws are known for simulated images: the noise
            that they were made from.
        step_sizes: [segments, n] of an earlier call for the same images; None: they are settled first.
        label: of the progress bar; None for no bar.
    """
    tune, walk = _compiled(model, math.ceil(steps / SEGMENTS))
    betas, results = schedule(), []
    batches = [slice(first, first + IMAGES) for first in range(0, len(images), IMAGES)]
    with progress.Bar(len(batches) * SEGMENTS * (1 if step_sizes is not None else 2), label) as bar:
        for batch in batches:
            x = tf.constant(images[batch], tf.float32)
            seeds = [rng.stream(seed, batch.start, name) for name in ("tune", "start", "anneal")]
            shape = [chains, len(x), sum(model.latent_units)]
            if step_sizes is None:
                sizes = [tf.ones([1, len(x), 1])]
                state = rng.normal([TUNING_CHAINS, *shape[1:]], seeds[0])
                for i, beta in enumerate(betas[1:]):
                    state, size = tune(x, state, tf.constant(beta), sizes[-1], rng.fold(seeds[0], i))
                    sizes.append(size)
                    bar.advance()
                sizes = sizes[1:]
            else:
                sizes = [tf.constant(size[None, :, None]) for size in step_sizes[:, batch]]
            if posterior_draws is None:
                state, path, order = rng.normal(shape, seeds[1]), betas, sizes
            else:
                state = tf.constant(np.broadcast_to(posterior_draws[batch], shape), tf.float32)
                path, order = betas[::-1], sizes[::-1]
            log_weights = tf.zeros(shape[:2])
            for i, size in enumerate(order):
                ends = tf.constant(path[i]), tf.constant(path[i + 1])
                state, gained = walk(x, state, *ends, size, rng.fold(seeds[2], i))
                log_weights += gained
                bar.advance()
            results.append((log_weights.numpy(), state.numpy(), tf.stack(sizes)[:, 0, :, 0].numpy()))
    return Annealed(*(np.concatenate(values, axis=1) for values in zip(*results, strict=True)))


def hamiltonian_monte_carlo(
    model: IWAE,
    images: np.ndarray,
    chains: int,
    draws: int,
    seed: int,
    steps: int = 500,
    burn_in: int = 100,
    thinning: int = 5,
    leapfrog_steps: int = 2 * LEAPFROG_STEPS,
    label: str | None = None,
) -> Draws:
    """Draws from the true posterior p(z | x) of each image, for any number of latent units and layers.

    The chains start where twice as many of annealed importance sampling ended, resampled by their weights, so that
    every mode has its share of them even if no chain can get from one to another (`r_hat` is then large).

    Args:
        model: an `IWAE`.
        images: [n, D], at most a hundred or so: all chains walk at once.
        chains: C for each image.
        draws: from each chain, `thinning` steps apart.
        seed: of all noise.
        steps: temperatures of the annealing.
        burn_in: steps of the chains before the first draw, while the step size is settled anew.
        thinning, leapfrog_steps: of HMC.
        label: of the progress bar; None for no bar.
    """
    annealed = sample(model, images, 2 * chains, steps, seed, label=label)
    x, shape = tf.constant(images, tf.float32), (chains, *annealed.states.shape[1:])
    start = _resampled(annealed, chains, np.random.default_rng(seed))
    step_size = tf.constant(annealed.step_sizes[-1][None, :, None])

    @tf.function(jit_compile=True)
    def compiled(
        x: tf.Tensor, state: tf.Tensor, step_size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        kernel = _adapting(_Hmc(_density(_log_likelihood(model, x), 1.0), step_size, leapfrog_steps), burn_in)
        noise, log_accept = tfp.mcmc.sample_chain(
            draws,
            state,
            kernel=kernel,
            num_burnin_steps=burn_in,
            num_steps_between_results=thinning - 1,
            trace_fn=lambda _, results: results.inner_results.log_accept_ratio,
            seed=seed,
        )
        acceptance = tf.reduce_mean(tf.exp(tf.minimum(log_accept, 0.0)), axis=(0, 1))
        r_hat = tf.reduce_max(tfp.mcmc.potential_scale_reduction(noise), axis=-1)
        z = latents(model, tf.reshape(noise, [draws * chains, *shape[1:]]), x)
        return [tf.reshape(values, [draws, *shape[:2], -1]) for values in z], acceptance, r_hat

    z, acceptance, r_hat = compiled(x, tf.constant(start), step_size, tf.constant([seed, -1]))
    return Draws([values.numpy() for values in z], acceptance.numpy(), r_hat.numpy())


@functools.lru_cache(maxsize=1)
def _compiled(
    model: IWAE, steps: int
) -> tuple[Callable[..., tuple[tf.Tensor, tf.Tensor]], Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
    """Two compiled functions: chains that settle a step size, and a segment of annealed importance sampling."""

    @tf.function(jit_compile=True)
    def tune(
        x: tf.Tensor, state: tf.Tensor, beta: tf.Tensor, step_size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        kernel = _adapting(_Hmc(_density(_log_likelihood(model, x), beta), step_size), TUNING_STEPS)
        states, sizes = tfp.mcmc.sample_chain(
            1,
            state,
            kernel=kernel,
            num_burnin_steps=TUNING_STEPS - 1,
            trace_fn=lambda _, results: results.new_step_size,
            seed=seed,
        )
        return states[0], sizes[0]

    @tf.function(jit_compile=True)
    def walk(
        x: tf.Tensor, state: tf.Tensor, beta: tf.Tensor, next_beta: tf.Tensor, step_size: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        log_likelihood = _log_likelihood(model, x)
        state, log_weights, _ = tfp.mcmc.sample_annealed_importance_chain(
            steps,
            _density(log_likelihood, beta),
            _density(log_likelihood, next_beta),
            state,
            lambda density: _Hmc(density, step_size),
            seed=seed,
        )
        return state, log_weights

    return tune, walk


def _log_likelihood(model: IWAE, x: tf.Tensor) -> LogDensity:
    """log p(x | z_1(e)): a function e [C, B, E] -> [C, B].

    Asked twice in a row for the same tensor it computes nothing: TensorFlow Probability wants the log density at both
    ends of a path at each state, and each of them would get a backward pass of its own.
    """
    last: list[tf.Tensor] = []

    def log_likelihood(noise: tf.Tensor) -> tf.Tensor:
        if not last or last[0] is not noise:
            last[:] = [noise, model.log_likelihood(x, latents(model, noise, x)[0])]
        return last[1]

    return log_likelihood


def _density(log_likelihood: LogDensity, beta: float | tf.Tensor) -> LogDensity:
    """log N(e; 0, I) + beta log p(x | z_1(e)): a function e [C, B, E] -> [C, B]."""
    return lambda noise: layers.standard_gaussian_log_prob(noise) + beta * log_likelihood(noise)


def _adapting(kernel: tfp.mcmc.TransitionKernel, steps: int) -> tfp.mcmc.TransitionKernel:
    """A kernel whose step size [1, B, 1] moves by a tenth after each of the first steps."""
    return tfp.mcmc.SimpleStepSizeAdaptation(kernel, steps, target_accept_prob=ACCEPTANCE, adaptation_rate=0.1)


def _resampled(annealed: Annealed, chains: int, random: np.random.Generator) -> np.ndarray:
    """States [chains, n, E], each of the annealed ones as often as its weight says, up to rounding (systematic)."""
    weights = special.softmax(annealed.log_weights.astype(np.float64), axis=0)
    positions = (np.arange(chains)[:, None] + random.random(weights.shape[1])) / chains
    picked = np.sum(np.cumsum(weights, axis=0)[:-1, None] <= positions, axis=0)
    return annealed.states[picked, np.arange(weights.shape[1])]


class _Hmc(tfp.mcmc.TransitionKernel):
    """HMC that computes density and gradient anew at each step and takes steps of random size.

    Anew, because `sample_annealed_importance_chain` changes the density with every step, while HMC goes on from the
    density and gradient it kept from the step before, those of another temperature: proposals would be accepted with a
    wrong probability and the weights biased. Random, because a trajectory as long as half a period of the target
    comes to a point of the same density wherever it goes, and chains would not mix (Neal 2011, section 5.4.2.2).
    """

    def __init__(self, target: LogDensity, step_size: tf.Tensor, leapfrog_steps: int = LEAPFROG_STEPS):
        self._kernel = tfp.mcmc.HamiltonianMonteCarlo(
            target, step_size, leapfrog_steps, store_parameters_in_results=True
        )

    @property
    def is_calibrated(self) -> bool:
        return True

    def one_step(
        self, current_state: tf.Tensor, previous_kernel_results: Any, seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, Any]:
        step_size = previous_kernel_results.accepted_results.step_size
        of_step, of_size = tfp.random.split_seed(seed)
        low, high = JITTER
        factor = low + (high - low) * tf.random.stateless_uniform([], of_size, alg="philox")
        start = _with_step_size(self._kernel.bootstrap_results(current_state), step_size * factor)
        state, results = self._kernel.one_step(current_state, start, seed=of_step)
        return state, _with_step_size(results, step_size)

    def bootstrap_results(self, init_state: tf.Tensor) -> Any:
        return self._kernel.bootstrap_results(init_state)


def _with_step_size(results: Any, step_size: tf.Tensor) -> Any:
    """Results of HMC whose next step has another size."""
    return results._replace(accepted_results=results.accepted_results._replace(step_size=step_size))
