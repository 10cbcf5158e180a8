"""The variational autoencoder of Burda, Grosse & Salakhutdinov (2015), with any number of stochastic layers.

Axis order everywhere: [k, B, D] (importance samples, examples, dimensions). The model knows no file and no plot.

    x -> q(z_1 | x) -> q(z_2 | z_1) -> ...        the posterior (encoder), from the data upwards
    ... -> p(z_1 | z_2) -> p(x | z_1)             the generative network (decoder), which mirrors it; p(z_L) = N(0, I)
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from iwae import bounds, estimators, layers, rng


class LogWeightTerms(NamedTuple):
    """What a log weight is made of; lists have one entry a stochastic layer, from the data upwards; nats."""

    log_likelihood: tf.Tensor  # log p(x | z_1), [k, B]
    log_prior: list[tf.Tensor]  # log p(z_l | z_{l+1}), each [k, B]; the last one is log p(z_L)
    log_posterior: list[tf.Tensor]  # log q(z_l | z_{l-1}), each [k, B]
    samples: list[tf.Tensor]  # z_l as the densities have them, each [k, B, D_l]
    drawn: list[tf.Tensor]  # the same numbers as the sampler drew them, each from `drawn` of the layer below
    posterior: list[tuple[tf.Tensor, tf.Tensor]]  # mean and log std of q(z_l | .): [1, B, D_1], then [k, B, D_l]

    def log_weights(self, beta: float | tf.Tensor = 1.0) -> tf.Tensor:
        """log p(x | z_1) + beta (log p(z) - log q(z | x)): [k, B]; beta = 1 gives the log weight."""
        return self.log_likelihood + beta * (tf.add_n(self.log_prior) - tf.add_n(self.log_posterior))


class IWAE(keras.Model):
    """A VAE or IWAE: one class for any number of stochastic layers, any objective and any gradient estimator.

    Args:
        input_dim: D, the number of pixels.
        latent_units: size of each stochastic layer, from the data upwards.
        hidden_units: sizes of the tanh layers below each stochastic layer, same order.
        objective: name of the bound that is maximised (`iwae.bounds`).
        k: importance samples an example.
        likelihood: "bernoulli" or "gaussian".
        estimator: name of the gradient estimator (`iwae.estimators`).
        alpha, groups, mixture: parameters of some objectives (`iwae.config.Model`).
        beta: weight of the KL term in the training objective.
        data_mean, data_std: [D], of the training data; they set the initial bias of the outermost layer.
        seed: of the initial weights and of all noise in training.

    Example:
        model = iwae.IWAE(input_dim=784, latent_units=(50,), hidden_units=((200, 200),), k=5)
        model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
        model.fit(binary_images, batch_size=20, epochs=10)
    """

    def __init__(
        self,
        input_dim: int,
        latent_units: Sequence[int] = (50,),
        hidden_units: Sequence[Sequence[int]] = ((200, 200),),
        objective: str = "iwae",
        k: int = 50,
        likelihood: str = "bernoulli",
        estimator: str = "reparameterized",
        alpha: float = 0.5,
        groups: int = 1,
        mixture: float = 0.5,
        beta: float = 1.0,
        data_mean: np.ndarray | None = None,
        data_std: np.ndarray | None = None,
        seed: int = 123,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if input_dim < 1:
            raise ValueError(f"input_dim: expected an integer >= 1, got {input_dim!r}")
        if k < 1:
            raise ValueError(f"k: expected an integer >= 1, got {k!r}")
        if not latent_units or len(latent_units) != len(hidden_units):
            raise ValueError(
                "hidden_units: expected one list of sizes for each stochastic layer "
                f"({len(latent_units)} in latent_units), got {len(hidden_units)}"
            )
        for name, values in (("data_mean", data_mean), ("data_std", data_std)):
            if values is not None and np.shape(values) != (input_dim,):
                raise ValueError(f"{name}: expected shape ({input_dim},), got {np.shape(values)}")
        self.input_dim, self.latent_units = input_dim, tuple(latent_units)
        self.k, self.seed, self.objective_name, self.estimator_name = k, seed, objective, estimator
        options = {"alpha": alpha, "groups": groups, "mixture": mixture}
        self.objective = bounds.objective(objective, **options)
        other = bounds.ENCODER_OBJECTIVES.get(objective)
        self.encoder_objective = bounds.objective(other, **options) if other else None
        self.estimator = estimators.get(estimator)
        self.samples_per_example = k * groups
        # A variable, so that a warm-up of beta does not compile the training step anew.
        self.beta = self.add_weight(
            shape=(), initializer=lambda *_, **__: tf.constant(beta), trainable=False, name="beta"
        )
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood: expected 'bernoulli' or 'gaussian', got {likelihood!r}")
        self.log_likelihood = self._bernoulli if likelihood == "bernoulli" else self._gaussian

        seeds = np.random.SeedSequence(seed)
        sizes = (input_dim, *latent_units)
        self.encoder = [
            layers.GaussianLayer(hidden, units, seeds, name=f"q_z{i + 1}")
            for i, (hidden, units) in enumerate(zip(hidden_units, latent_units, strict=True))
        ]
        outermost = (
            layers.BernoulliLayer(hidden_units[0][::-1], input_dim, seeds, mean=data_mean, name="p_x")
            if likelihood == "bernoulli"
            else layers.GaussianLayer(
                hidden_units[0][::-1],
                input_dim,
                seeds,
                mean=data_mean,
                std=_safe_scale(data_std, input_dim),
                name="p_x",
            )
        )
        self.decoder = [outermost] + [
            layers.GaussianLayer(hidden[::-1], units, seeds, name=f"p_z{i + 1}")
            for i, (hidden, units) in enumerate(zip(hidden_units[1:], latent_units[:-1], strict=True))
        ]
        for i, (encoder, decoder) in enumerate(zip(self.encoder, self.decoder, strict=True)):
            encoder.build((None, sizes[i]))
            decoder.build((None, sizes[i + 1]))
        self.built = True
        self.bound_tracker = keras.metrics.Mean(name="bound")
        self.images = None

    # ---- densities -------------------------------------------------------------------------------------------------

    def draw_noise(self, k: int, batch: int, seed: tf.Tensor) -> list[tf.Tensor]:
        """Standard normal noise for every stochastic layer: [k, batch, D_l], from the data upwards."""
        return [rng.normal([k, batch, units], rng.fold(seed, i + 1)) for i, units in enumerate(self.latent_units)]

    def log_weight_terms(
        self,
        x: tf.Tensor,
        noise: list[tf.Tensor],
        units: list[tf.Tensor] | None = None,
        stop_posterior: bool = False,
    ) -> LogWeightTerms:
        """The terms of the log weights of x [B, D] for given noise (`draw_noise`).

        Args:
            x: [B, D].
            noise: for each stochastic layer [k, B, D_l].
            units: for each layer [D_l] of 0 and 1, or None. Units with 0 are removed from q and p: they are not
                sampled, feed nothing and count in no density.
            stop_posterior: no gradient flows to the parameters of q through log q (it still flows through z).
        """
        k = noise[0].shape[0]
        posterior, samples, drawn, log_posterior = [], [], [], []
        below = sampled_below = x
        for i, (encoder, epsilon) in enumerate(zip(self.encoder, noise, strict=True)):
            mean, log_std = _apply(encoder, sampled_below)
            sampled_below = mean + tf.exp(log_std) * epsilon
            if units is not None:
                sampled_below = sampled_below * units[i]
            z = tf.identity(sampled_below)  # a variable of its own to a tape, apart from the way it was drawn
            if stop_posterior:
                frozen_mean, frozen_log_std = _apply(encoder, below, stop_weights=True)
                log_posterior.append(layers.gaussian_log_prob(z, frozen_mean, frozen_log_std, units and units[i]))
            else:
                log_posterior.append(layers.gaussian_log_prob_of_noise(epsilon, log_std, units and units[i]))
            below = z
            posterior.append((mean, log_std))
            samples.append(z)
            drawn.append(sampled_below)
        log_prior = []
        for i, (z, decoder, above) in enumerate(zip(samples[:-1], self.decoder[1:], samples[1:], strict=True)):
            mean, log_std = _apply(decoder, above)
            log_prior.append(layers.gaussian_log_prob(z, mean, log_std, units and units[i]))
        log_prior.append(layers.standard_gaussian_log_prob(samples[-1], units and units[-1]))
        terms = LogWeightTerms(self.log_likelihood(x, samples[0]), log_prior, log_posterior, samples, drawn, posterior)
        for values in (terms.log_likelihood, *log_prior, *log_posterior):
            values.shape.assert_is_compatible_with((k, x.shape[0]))  # a broadcast would be silent
        return terms

    def training_log_weights(self, terms: LogWeightTerms) -> tf.Tensor:
        """What the objective is taken of: log weights [k, B] with the weight beta on the KL term, in nats.

        With the objective "vae_analytic_kl" that term is KL(q(z | x) || N(0, I)) in closed form.
        """
        if self.objective_name != "vae_analytic_kl":
            return terms.log_weights(self.beta)
        ((mean, log_std),) = terms.posterior
        kl = tf.reduce_sum(0.5 * (tf.square(mean) + tf.exp(2 * log_std) - 1) - log_std, axis=-1)
        return terms.log_likelihood - self.beta * kl

    def log_weights(self, x: tf.Tensor, k: int, seed) -> tf.Tensor:
        """log w_i = log p(x, z_i) - log q(z_i | x), z_i ~ q(z | x): x [B, D] -> [k, B], nats.

        `seed` is two integers or a tensor [2]; the same seed gives the same numbers.
        """
        x = self._checked(x)
        return self.log_weight_terms(x, self.draw_noise(k, _examples(x), _as_seed(seed))).log_weights()

    def encode(self, x: tf.Tensor, k: int, seed) -> list[tf.Tensor]:
        """Samples z_l [k, B, D_l] of every stochastic layer from q(z | x), x [B, D], from the data upwards."""
        x = self._checked(x)
        samples, below = [], x
        for encoder, epsilon in zip(self.encoder, self.draw_noise(k, _examples(x), _as_seed(seed)), strict=True):
            mean, log_std = _apply(encoder, below)
            below = mean + tf.exp(log_std) * epsilon
            samples.append(below)
        return samples

    def decode(self, z: tf.Tensor):
        """p(x | z_1) for z_1 [..., D_1]: a TensorFlow Probability distribution over [D] with batch shape [...]."""
        import tensorflow_probability as tfp  # two seconds to import, and nothing else needs it

        parameters = self._decode(z)
        if isinstance(self.decoder[0], layers.BernoulliLayer):
            return tfp.distributions.Independent(tfp.distributions.Bernoulli(logits=parameters, dtype=tf.float32), 1)
        mean, log_std = parameters
        return tfp.distributions.MultivariateNormalDiag(loc=mean, scale_diag=tf.exp(log_std))

    def decode_mean(self, z: tf.Tensor) -> tf.Tensor:
        """E[x | z_1]: z_1 [..., D_1] -> [..., D]; for Bernoulli pixels their probabilities."""
        parameters = self._decode(z)
        return tf.sigmoid(parameters) if isinstance(self.decoder[0], layers.BernoulliLayer) else parameters[0]

    def sample(self, n: int, seed) -> tf.Tensor:
        """n images from the prior: ancestral samples of the latent layers, then E[x | z_1]. -> [n, D]."""
        return self.decode_mean(self.sample_latents(n, seed))

    def sample_latents(self, n: int, seed) -> tf.Tensor:
        """n samples z_1 of the lowest stochastic layer from the prior, by ancestral sampling. -> [n, D_1]."""
        seed = _as_seed(seed)
        z = rng.normal([n, self.latent_units[-1]], rng.fold(seed, 0))
        for i, decoder in reversed(list(enumerate(self.decoder[1:], start=1))):
            mean, log_std = decoder(z)
            z = mean + tf.exp(log_std) * rng.normal(mean.shape, rng.fold(seed, i))
        return z

    def _decode(self, z):
        flat = self.decoder[0](tf.reshape(z, [-1, z.shape[-1]]))
        shape = tf.concat([tf.shape(z)[:-1], [self.input_dim]], axis=0)
        return tf.nest.map_structure(lambda values: tf.reshape(values, shape), flat)

    def _bernoulli(self, x, z):
        return self.decoder[0].log_prob(x, z)

    def _gaussian(self, x, z):
        return layers.gaussian_log_prob(x, *_apply(self.decoder[0], z))

    def _checked(self, x) -> tf.Tensor:
        x = tf.convert_to_tensor(x, tf.float32)
        if x.shape.rank != 2 or x.shape[-1] != self.input_dim:
            raise ValueError(f"x: expected shape [B, {self.input_dim}], got {list(x.shape)}")
        return x

    # ---- training --------------------------------------------------------------------------------------------------

    def compile(self, *args, jit_compile: bool = True, **kwargs):
        """As in Keras, but through XLA unless told otherwise: the loop over updates is several times faster in it."""
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    @property
    def encoder_variables(self) -> list:
        """Trainable variables of q, from the data upwards."""
        return [variable for layer in self.encoder for variable in layer.trainable_variables]

    @property
    def decoder_variables(self) -> list:
        """Trainable variables of p, from the data upwards."""
        return [variable for layer in self.decoder for variable in layer.trainable_variables]

    @property
    def metrics(self):
        return [self.bound_tracker]

    def hold(self, images) -> None:
        """Keeps the training set on the device; `fit` is then fed blocks of indices into it (`iwae.training`)."""
        self.images = images

    def call(self, x):
        """log weights [B, k] of x [B, D] for the noise of seed 0, the examples first, as `predict` wants them."""
        return tf.transpose(self.log_weights(x, self.k, (self.seed, 0)))

    def train_step(self, data):
        """One update from images [B, D], or from a block of indices [S, B] as many as it has rows.

        A row of indices that starts with -1, and all after it, are padding. The whole block runs in one compiled loop
        (`compile` with `jit_compile` on, which is Keras's default); its noise depends on the seed and on the number of
        the update alone, so results do not depend on how updates are cut into blocks.
        """
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self.images is None or not x.dtype.is_integer:
            x = tf.cast(x, tf.float32)
            valid = tf.ones([tf.shape(x)[0]])
            self.bound_tracker.update_state(self._update(x, valid), sample_weight=tf.reduce_sum(valid))
            return {"bound": self.bound_tracker.result()}

        rows = tf.reduce_sum(tf.cast(x[:, 0] >= 0, tf.int32))

        def one_update(i, total, failed):
            valid = tf.cast(x[i] >= 0, tf.float32)
            images = self.images.batch(tf.maximum(x[i], 0), self._update_seed("binarize"))
            bound = self._update(images, valid)
            failed = tf.where((failed == 0) & ~tf.math.is_finite(bound), self._updates(), failed)
            return i + 1, total + bound * tf.reduce_sum(valid), failed

        _, total, failed = tf.while_loop(
            lambda i, *_: i < rows, one_update, (tf.constant(0), tf.constant(0.0), tf.constant(0))
        )
        examples = tf.reduce_sum(tf.cast(x >= 0, tf.float32))
        self.bound_tracker.update_state(total / examples, sample_weight=examples)
        return {"bound": self.bound_tracker.result(), "nonfinite_update": failed}

    def test_step(self, data):
        """The mean bound of images [B, D], with k samples; the noise depends on the seed and on the examples before."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        seed = rng.stream(self.seed, self.bound_tracker.count, "test")
        noise = self.draw_noise(self.samples_per_example, _examples(x), seed)
        bound = self.objective(self.log_weight_terms(tf.cast(x, tf.float32), noise).log_weights())
        self.bound_tracker.update_state(bound)
        return {"bound": self.bound_tracker.result()}

    def _update(self, x, valid):
        """One step of the optimizer; returns the mean bound over the examples with valid = 1."""
        noise = self.draw_noise(self.samples_per_example, _examples(x), self._update_seed("posterior"))
        weights = valid / tf.reduce_sum(valid)
        bound, gradients = self.estimator(self, x, noise, weights, self._update_seed("estimator"))
        # Every update waits for the last gradient (a zero is made of all): else XLA copies weights still to be read in
        # the backward pass, and k = 1 takes 0.71 ms an update instead of 0.63 on a CPU.
        zero = 0.0 * tf.add_n([tf.reshape(g, [-1])[0] for g in gradients])
        self.optimizer.apply([zero - g for g in gradients], self.trainable_variables)
        return bound

    def _updates(self):
        return tf.cast(self.optimizer.iterations.value, tf.int32)

    def _update_seed(self, stream):
        return rng.stream(self.seed, self._updates(), stream)


def _examples(x: tf.Tensor):
    """B of x [B, D], also where it is not known before the function runs."""
    return x.shape[0] or tf.shape(x)[0]


def _as_seed(seed) -> tf.Tensor:
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape != (2,):
        raise ValueError(f"seed: expected two integers, got shape {list(seed.shape)}")
    return seed


def _apply(layer, inputs, stop_weights=False):
    """A layer on [B, I] or [k, B, I]: outputs [1, B, D] or [k, B, D]. Flattened first: one large matrix product."""
    leading = [1, *inputs.shape[:-1]] if inputs.shape.rank == 2 else list(inputs.shape[:-1])
    leading = [-1 if size is None else size for size in leading]
    flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
    if stop_weights:
        outputs, _ = layer.stateless_call([tf.stop_gradient(v) for v in layer.trainable_variables], [], flat)
    else:
        outputs = layer(flat)
    return tf.nest.map_structure(lambda values: tf.reshape(values, [*leading, values.shape[-1]]), outputs)


def _safe_scale(std, input_dim):
    """[D]; a dimension that hardly varies gets a tenth of the largest scale, one without data a scale of one."""
    if std is None:
        return np.ones(input_dim, np.float32)
    std = np.asarray(std, np.float32)
    return np.maximum(std, 0.1 * std.max()) if std.max() > 0 else np.ones_like(std)
