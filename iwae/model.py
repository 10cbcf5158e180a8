"""The variational autoencoder of Burda, Grosse & Salakhutdinov (2015), with any number of stochastic layers.

Axis order everywhere: [k, B, D] (importance samples, examples, dimensions). The model knows no file and no plot.

    x -> q(z_1 | x) -> q(z_2 | z_1) -> ...        the posterior (encoder), from the data upwards
    ... -> p(z_1 | z_2) -> p(x | z_1)             the generative network (decoder), which mirrors it; p(z_L) = N(0, I)
"""

import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from iwae import bounds, estimators, hardware, inputs, layers, rng
from iwae.bounds import Bound
from iwae.flows import SplineFlow
from iwae.logistic import DiscretizedLogistic

Seed: TypeAlias = Any  # two integers, or a tensor [2]
LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic")
Networks = tuple[keras.Layer | Sequence[keras.Layer], keras.Layer | Sequence[keras.Layer]] | SplineFlow


class Images(Protocol):
    """A training set on the device, such as `iwae.batches.ResidentImages`."""

    def batch(self, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Images [B, D] for indices [B]; `seed` [2] is for what is random in them."""


class LogWeightTerms(NamedTuple):
    """What a log weight is made of; lists have one entry a stochastic layer, from the data upwards; nats."""

    log_likelihood: tf.Tensor  # log p(x | z_1), [k, B]
    log_prior: list[tf.Tensor]  # log p(z_l | z_{l+1}), each [k, B]; the last one is log p(z_L)
    log_posterior: list[tf.Tensor]  # log q(z_l | z_{l-1}), each [k, B]
    samples: list[tf.Tensor]  # z_l as the densities have them, each [k, B, D_l]
    drawn: list[tf.Tensor]  # the same numbers as the sampler drew them, each from `drawn` of the layer below
    posterior: list[layers.Gaussian]  # q(z_l | .), made of tensors [1, B, D_1], then [k, B, D_l]

    def log_weights(self, beta: float | tf.Tensor = 1.0) -> tf.Tensor:
        """log p(x | z_1) + beta (log p(z) - log q(z | x)): [k, B]; beta = 1 gives the log weight."""
        return self.log_likelihood + beta * (tf.add_n(self.log_prior) - tf.add_n(self.log_posterior))


@keras.saving.register_keras_serializable("iwae")
class IWAE(keras.Model):
    """A VAE or IWAE: one class for any number of stochastic layers, any objective and any gradient estimator.

    Args:
        input_dim: D, the number of pixels.
        latent_units: size of each stochastic layer, from the data upwards.
        hidden_units: sizes of the tanh layers below each stochastic layer, same order.
        objective: the bound that is maximised, one of `iwae.bounds`: its name, or the bound itself, such as
            `bounds.Renyi(alpha=0.3)`.
        k: importance samples an example.
        likelihood: "bernoulli", "gaussian", or for 8-bit values, in [0, 1] or uint8, "discretized_logistic".
        estimator: name of the gradient estimator (`iwae.estimators`).
        data_moments: mean and standard deviation, [D] each, of the training data. But under a Bernoulli likelihood the
            networks see and give data that are standardized by them; what the model gives, densities too, is of the
            data as they are. Under a Bernoulli likelihood they set the first bias of the pixels. None: not known.
        network: None for the tanh layers of `hidden_units`, `flows.SplineFlow(4)` for these and a posterior that is no
            Gaussian, or networks of your own: an encoder and a decoder, Keras layers or models, for several stochastic
            layers a list of each, from the data upwards. An encoder gives the mean and the log standard deviation of q,
            [N, I] -> two of [N, D_l]; so does a decoder, but for the outermost one of a Bernoulli likelihood, which
            gives logits [N, D], and of a discretized logistic one, which gives location and log scale. `hidden_units`
            are then of no effect. They are called as in inference: no Dropout, and BatchNormalization with the
            statistics it starts with.
        seed: of the initial weights and of all noise in training.

    A condition, p(x | y), is in `iwae.conditional`. The variable `beta` is the weight of the KL term in the training
    objective, 1 unless assigned. With the attribute `missing`, False unless set before the model is used, NaN stands
    for a pixel that is not known: p(x | z_1) is that of the others (MIWAE: Mattei & Frellsen 2019, arXiv:1812.02633),
    and networks see a standardized zero in its place.

    An example, with binary images [n, 784]:

        model = iwae.IWAE(input_dim=784, latent_units=(50,), hidden_units=((200, 200),), k=5)
        model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
        model.fit(binary_images, batch_size=20, epochs=10)
    """

    classes: int = 0  # C, of a condition y: one-hot columns behind the pixels of x [B, D + C], and behind z_1 to decode

    def __init__(
        self,
        input_dim: int,
        latent_units: Sequence[int] = (50,),
        hidden_units: Sequence[Sequence[int]] = ((200, 200),),
        objective: str | dict[str, Any] | Bound = "iwae",
        k: int = 50,
        likelihood: str = "bernoulli",
        estimator: str = "reparameterized",
        data_moments: tuple[ArrayLike, ArrayLike] | None = None,
        network: Networks | None = None,
        seed: int = 123,
        **kwargs: Any,
    ):
        super().__init__(**{"name": "iwae", **kwargs})  # one name, as it is in the path of a variable
        for name, value in (("input_dim", input_dim), ("k", k)):
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
        for name, sizes in (("latent_units", latent_units), ("hidden_units", hidden_units)):
            if not isinstance(sizes, Sequence) or isinstance(sizes, str):
                raise ValueError(f"{name}: expected a list with an entry for each stochastic layer, got {sizes!r}")
        if not latent_units or (isinstance(network, SplineFlow | None) and len(latent_units) != len(hidden_units)):
            raise ValueError(
                "hidden_units: expected one list of sizes for each stochastic layer "
                f"({len(latent_units)} in latent_units), got {len(hidden_units)}"
            )
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood: expected one of {', '.join(LIKELIHOODS)}, got {likelihood!r}")
        self.input_dim, self.latent_units = input_dim, tuple(latent_units)
        self.k, self.seed, self.likelihood, self.missing = k, seed, likelihood, False
        self.objective = bounds.as_bound(objective)
        self.estimator_name, self.estimator = estimator, estimators.get(estimator)
        if getattr(self.objective, "analytic_kl", False) and len(self.latent_units) > 1:
            raise ValueError(f"objective: expected one that works with several stochastic layers, got {objective!r}")
        estimators.check(estimator, self.objective)
        self.samples_per_example = self._samples(k)
        mean, std = (None, None) if data_moments is None else (np.asarray(m, np.float32) for m in data_moments)
        for name, values in (("mean", mean), ("standard deviation", std)):
            if values is not None and values.shape != (input_dim,):
                raise ValueError(f"data_moments: expected a {name} of shape ({input_dim},), got {values.shape}")
        # A variable, so that a warm-up of beta does not compile the training step anew.
        self.beta = self.add_weight(shape=(), initializer="ones", trainable=False, name="beta")
        if likelihood != "bernoulli":  # variables, so that they are saved with the weights
            self.data_mean = self.add_weight(shape=(input_dim,), initializer="zeros", trainable=False, name="data_mean")
            self.data_std = self.add_weight(shape=(input_dim,), initializer="ones", trainable=False, name="data_std")
            if mean is not None and std is not None:
                varies = std > np.finfo(np.float32).eps * np.abs(mean)  # not by rounding alone
                self.data_mean.assign(mean)
                self.data_std.assign(np.where(varies, std, 1.0))
        if isinstance(network, SplineFlow | None):
            make = layers.tanh_networks if network is None else network.networks
            self.encoder, self.decoder = make(input_dim, self.latent_units, hidden_units, likelihood, mean, seed)
        else:
            self.encoder, self.decoder = ([part] if callable(part) else list(part) for part in network)
            layers.check_networks(self.encoder, self.decoder, self.latent_units)
        if getattr(self.objective, "analytic_kl", False) and hasattr(self.encoder[0], "posterior_of"):
            raise ValueError(f"objective: expected one for posteriors that are no Gaussians, got {objective!r}")
        sizes = (input_dim, *self.latent_units)
        for i, (encoder, decoder) in enumerate(zip(self.encoder, self.decoder, strict=True)):
            is_logits, more = i == 0 and likelihood == "bernoulli", 0 if i else self.classes
            layers.check_outputs(f"encoder {i + 1}", encoder, sizes[i] + more, [sizes[i + 1]] * 2)
            layers.check_outputs(f"decoder {i + 1}", decoder, sizes[i + 1] + more, [sizes[i]] * (1 if is_logits else 2))
        apart = estimator == "dreg" or hasattr(self.objective, "for_encoder")
        if apart and {id(v) for v in self.encoder_variables} & {id(v) for v in self.decoder_variables}:
            raise ValueError(
                "network: expected an encoder and a decoder without common variables, whose gradients are taken apart "
                f"with estimator {estimator!r} and objective {objective!r}, got some"
            )
        self.built = True
        self.bound_tracker = keras.metrics.Mean(name="bound")
        self.images: Images | None = None
        self._config = {
            "input_dim": input_dim, "latent_units": list(latent_units), "hidden_units": [list(h) for h in hidden_units],
            "k": k, "likelihood": likelihood, "estimator": estimator, "seed": seed,
        }  # fmt: skip
        self._network = network

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor and `missing`, as JSON has them; the moments of the data are in the weights.

        Raises:
            ValueError: the objective is not registered (`iwae.bounds.register`).
        """
        as_given = isinstance(self._network, SplineFlow | None)
        network = keras.saving.serialize_keras_object(self._network if as_given else [self.encoder, self.decoder])
        others = {"network": network, "name": self.name, "missing": self.missing}
        return {**self._config, "objective": bounds.name_of(self.objective), **others}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "IWAE":
        network, missing = config.pop("network"), config.pop("missing", False)
        if network is not None:
            network = keras.saving.deserialize_keras_object(network, custom_objects)
        model = cls(network=network, **config)
        model.missing = missing
        return model

    # ---- what a condition changes (`iwae.conditional`); here there is none ------------------------------------------

    def joined(self, z: Any, x: Any) -> Any:
        """z_1 [..., D_1] of examples x as p(x | z_1) is a function of it: with the columns of a condition behind it."""
        return z

    def from_prior(self, epsilon: tf.Tensor, x: Any) -> tf.Tensor:
        """z_L [..., D_L] made of standard normal noise: a draw of the prior, given the condition of x."""
        return epsilon

    def log_prior(self, z: tf.Tensor, x: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
        """log p(z_L), or given the condition of x [B, D + C]: z_L [..., D_L] -> [...], nats; `units` [D_L] or None."""
        return layers.standard_gaussian_log_prob(z, units)

    # ---- densities -------------------------------------------------------------------------------------------------

    def standardized(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., D] as the networks see it: but under a Bernoulli likelihood less `data_mean`, over `data_std`."""
        x = x if self.likelihood == "bernoulli" else (x - self.data_mean) / self.data_std
        return tf.where(tf.math.is_nan(x), 0.0, x) if self.missing else x

    def posterior(self, x: ArrayLike) -> layers.Gaussian:
        """q(z_1 | x) of images as `fit` takes them: a distribution made of tensors [1, n, D_1]."""
        return layers.posterior(self.encoder[0], self.standardized(self.as_images(x)))

    def posterior_parameters(self, x: ArrayLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log standard deviation of q(z_1 | x), or of the Gaussian that a flow bends: x [n, D] -> [n, D_1]."""
        q = self.posterior(x)
        return q.mean[0], q.log_std[0]

    def likelihood_parameters(self, z: tf.Tensor) -> Any:
        """Of p(x | z_1), z_1 [..., D_1]: logits [..., D], or mean or location and log standard deviation or scale."""
        flat = self.decoder[0](tf.reshape(z, [-1, z.shape[-1]]))
        if self.likelihood != "bernoulli":
            mean, log_std = flat
            flat = self.data_mean + self.data_std * mean, log_std + tf.math.log(self.data_std)
        shape = tf.concat([tf.shape(z)[:-1], [self.input_dim]], axis=0)
        return tf.nest.map_structure(lambda values: tf.reshape(values, shape), flat)

    def draw_noise(self, k: int, batch: int | tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
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
            noise: for each stochastic layer [k, B, D_l].
            units: for each layer [D_l] of 0 and 1, or None. Units with 0 are removed from q and p: they are not
                sampled, feed nothing and count in no density.
            stop_posterior: no gradient flows to the parameters of q through log q (it still flows through z).
        """
        k = noise[0].shape[0]
        posterior, samples, drawn, log_posterior = [], [], [], []
        below = sampled_below = self.standardized(x)
        for i, (encoder, epsilon) in enumerate(zip(self.encoder, noise, strict=True)):
            q = layers.posterior(encoder, sampled_below)
            sampled_below, log_q = q.draw(epsilon, units and units[i])
            z = tf.identity(sampled_below)  # a variable of its own to a tape, apart from the way it was drawn
            if stop_posterior:
                log_q = layers.posterior(encoder, below, stop_weights=True).log_prob(z, units and units[i])
            below = z
            posterior.append(q)
            log_posterior.append(log_q)
            samples.append(z)
            drawn.append(sampled_below)
        log_prior = []
        for i, (z, decoder, above) in enumerate(zip(samples[:-1], self.decoder[1:], samples[1:], strict=True)):
            mean, log_std = layers.apply(decoder, above)
            log_prior.append(layers.gaussian_log_prob(z, mean, log_std, units and units[i]))
        log_prior.append(self.log_prior(samples[-1], x, units and units[-1]))
        terms = LogWeightTerms(self.log_likelihood(x, samples[0]), log_prior, log_posterior, samples, drawn, posterior)
        for values in (terms.log_likelihood, *log_prior, *log_posterior):
            values.shape.assert_is_compatible_with((k, x.shape[0]))  # a broadcast would be silent
        return terms

    def training_log_weights(self, terms: LogWeightTerms, objective: Bound) -> tf.Tensor:
        """What an objective is taken of: log weights [k, B] with the weight beta on the KL term, in nats.

        That term is KL(q(z | x) || N(0, I)) in closed form where the objective wants it so (`bounds.AnalyticElbo`).
        """
        if not getattr(objective, "analytic_kl", False):
            return terms.log_weights(self.beta)
        (q,) = terms.posterior
        kl = tf.reduce_sum(0.5 * (tf.square(q.mean) + tf.exp(2 * q.log_std) - 1) - q.log_std, axis=-1)
        return terms.log_likelihood - self.beta * kl

    def log_likelihood(self, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        """log p(x | z_1): x [B, D], z_1 [k, B, D_1] -> [k, B], nats."""
        outermost = self.decoder[0]
        known = ~tf.math.is_nan(x) if self.missing else None
        if self.likelihood == "discretized_logistic":
            return DiscretizedLogistic(*self.likelihood_parameters(z)).log_prob(x, known)
        if self.likelihood == "gaussian":
            mean, log_std = layers.apply(outermost, z)
            log_prob = layers.gaussian_log_prob(self.standardized(x), mean, log_std, known)
            return log_prob - layers.total(tf.math.log(self.data_std), known)
        if isinstance(outermost, layers.BernoulliLayer) and known is None:  # with gradients of its own
            return outermost.log_prob(x, z)
        return layers.bernoulli_log_prob_of_logits(self.standardized(x), layers.apply(outermost, z), known)

    def log_weights(self, x: ArrayLike, k: int, seed: Seed) -> tf.Tensor:
        """log w_i = log p(x, z_i) - log q(z_i | x), z_i ~ q(z | x): x [B, D] -> [k, B], nats.

        `seed` is two integers or a tensor [2]; the same seed gives the same numbers.
        """
        x = self.as_images(x)
        return self.log_weight_terms(x, self.draw_noise(k, _examples(x), _as_seed(seed))).log_weights()

    def encode(self, x: ArrayLike, k: int, seed: Seed) -> list[tf.Tensor]:
        """Samples z_l [k, B, D_l] of every stochastic layer from q(z | x), x [B, D], from the data upwards."""
        x = self.as_images(x)
        samples, below = [], self.standardized(x)
        for encoder, epsilon in zip(self.encoder, self.draw_noise(k, _examples(x), _as_seed(seed)), strict=True):
            below, _ = layers.posterior(encoder, below).draw(epsilon)
            samples.append(below)
        return samples

    def decode(self, z: tf.Tensor) -> Any:
        """p(x | z_1) for z_1 [..., D_1]: a distribution, as TensorFlow Probability has, over [D], batch shape [...]."""
        parameters = self.likelihood_parameters(z)
        if self.likelihood == "discretized_logistic":
            return DiscretizedLogistic(*parameters)
        import tensorflow_probability as tfp  # two seconds to import, and nothing else here needs it

        if self.likelihood == "bernoulli":
            return tfp.distributions.Independent(tfp.distributions.Bernoulli(logits=parameters, dtype=tf.float32), 1)
        mean, log_std = parameters
        return tfp.distributions.MultivariateNormalDiag(loc=mean, scale_diag=tf.exp(log_std))

    def decode_mean(self, z: tf.Tensor) -> tf.Tensor:
        """E[x | z_1]: z_1 [..., D_1] -> [..., D]; for Bernoulli pixels their probabilities."""
        parameters = self.likelihood_parameters(z)
        if self.likelihood == "discretized_logistic":
            return DiscretizedLogistic(*parameters).mean()
        return tf.sigmoid(parameters) if self.likelihood == "bernoulli" else parameters[0]

    def sample(self, n: int, seed: Seed = None) -> tf.Tensor:
        """n images from the prior: ancestral samples of the latent layers, then E[x | z_1]. -> [n, D].

        `seed` None: that of the model, so the same images at every call.
        """
        return self.decode_mean(self.sample_latents(n, (self.seed, 0) if seed is None else seed))

    def sample_latents(self, n: int, seed: Seed, x: ArrayLike | None = None) -> tf.Tensor:
        """n samples z_1 of the lowest stochastic layer from the prior, by ancestral sampling. -> [n, D_1].

        `x` [n, D + C]: examples whose condition they are given, and joined with; of no effect without one.
        """
        seed = _as_seed(seed)
        z = self.from_prior(rng.normal([n, self.latent_units[-1]], rng.fold(seed, 0)), x)
        for i, decoder in reversed(list(enumerate(self.decoder[1:], start=1))):
            mean, log_std = decoder(z)
            z = mean + tf.exp(log_std) * rng.normal(mean.shape, rng.fold(seed, i))
        return self.joined(z, x)

    def as_images(self, x: ArrayLike) -> tf.Tensor:
        """x as float32 [n, D], uint8 made 8-bit values; raises ValueError if it is not [n, ...] with D numbers each."""
        images = tf.convert_to_tensor(x)
        if images.shape.rank is not None:  # Keras forgets it where images of several shapes were used
            inputs.check_shape(images.shape, self.input_dim)
        if self.likelihood == "discretized_logistic" and images.dtype == tf.uint8:
            images = tf.cast(images, tf.float32) / 255
        return tf.cast(images if images.shape.rank == 2 else tf.reshape(images, [-1, self.input_dim]), tf.float32)

    def check(self, x: ArrayLike, stacklevel: int = 2) -> None:
        """Looks at images before they are used: [n, D], or [n, ...] with D numbers each.

        Warns, `stacklevel` calls up, of grey values under a Bernoulli likelihood, which takes them without complaint,
        and of real numbers far from the scale that a model without `data_moments` is made for.

        Raises:
            ValueError: there are none, or they have another shape or values that the likelihood does not have.
        """
        values = np.asarray(x)
        if self.missing and values.dtype.kind == "f":
            values = np.where(np.isnan(values), 0, values)
        inputs.check_shape(values.shape, self.input_dim)
        if self.likelihood == "gaussian":
            as_given = np.all(self.data_mean == 0) and np.all(self.data_std == 1)
            inputs.check_real(values, bool(as_given), stacklevel + 1)
        else:
            inputs.check_pixels(values, self.likelihood, stacklevel + 1)

    def _look_at(self, data: Any) -> Any:
        """Checks what Keras is given, and returns it: arrays whole, of anything that gives batches the first one."""
        x, data = inputs.first_images(data)
        if hasattr(x, "__array__"):
            self.check(x, stacklevel=4)
        return data

    # ---- training --------------------------------------------------------------------------------------------------

    def compile(self, *args: Any, jit_compile: bool = True, **kwargs: Any) -> None:
        """As in Keras, but through XLA unless told otherwise: the loop over updates is several times faster in it.

        Raises:
            ValueError: for a loss or metrics, which would be of no effect.
        """
        given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if given.get(name) is not None:
                raise ValueError(f"{name}: expected none, for the bound `objective` is maximized, got {given[name]!r}")
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Keras's own, which it leaves undone where `compile` is overridden: for `keras.models.load_model`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As in Keras: maximizes the bound of images x, an array [n, D] or whatever Keras takes batches from.

        Images of another shape with D numbers each, such as [n, 28, 28], are flattened. Targets are ignored. Images are
        looked at as in `check`, of a dataset or generator the first batch only.

        Raises:
            ValueError: as in `check`, and for `sample_weight`.
        """
        given = inputs.arguments(super().fit, x, *args, **kwargs)
        if given.get("validation_data") is not None:
            given["validation_data"] = self._look_at(given["validation_data"])
        return super().fit(**given | ({} if self.images is not None else {"x": self._look_at(x)}))

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in Keras: the mean bound of images, as `fit` takes them, with k samples, in nats."""
        given = inputs.arguments(super().evaluate, x, *args, **kwargs)
        looked_at = given.get("_use_cached_eval_dataset")  # by `fit`, which evaluates its validation data
        return super().evaluate(**given | ({} if looked_at else {"x": self._look_at(x)}))

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """As in Keras: log weights [n, k] of images, as `fit` takes them, in nats; see `call`."""
        return super().predict(self._look_at(x), *args, **kwargs)

    @property
    def encoder_variables(self) -> list[keras.Variable]:
        """Trainable variables of q, from the data upwards."""
        return [variable for layer in self.encoder for variable in layer.trainable_variables]

    @property
    def decoder_variables(self) -> list[keras.Variable]:
        """Trainable variables of p, from the data upwards."""
        return [variable for layer in self.decoder for variable in layer.trainable_variables]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.bound_tracker]

    def hold(self, images: Images | None, update: Callable[[tf.Tensor], tf.Tensor] | None = None) -> None:
        """Keeps a training set on the device, or with None lets it go again.

        Meanwhile `fit` is fed blocks of indices into it (`iwae.batches`). `update` takes the place of `update_from`.
        """
        self.images, self._update = images, update or self.update_from
        self.train_function = None  # Keras's; it is made anew for the other kind of data

    def train_with(self, k: int | None) -> None:
        """Importance samples an example in the updates to come; None: the model's k."""
        samples = self._samples(self.k if k is None else k)
        if samples != self.samples_per_example:
            self.samples_per_example = samples
            if self.train_function is not None:
                self.make_train_function(force=True)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """log weights [B, k] of x [B, D], examples first as `predict` wants them; every batch has the same noise."""
        return tf.transpose(self.log_weights(x, self.k, (self.seed, 0)))

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update from images [B, D]; while a training set is held (`hold`) S updates from indices [S, B] into it.

        Indices of -1 at the end of a row are padding. The whole block runs in one compiled loop (`compile` with
        `jit_compile` on, which is the default here); its noise depends on the seed and on the number of the update
        alone, so results do not depend on how updates are cut into blocks.
        """
        if self.images is not None:
            return self._train_on_block(keras.utils.unpack_x_y_sample_weight(data)[0])
        x = self.as_images(inputs.images_in(data))
        valid = tf.ones([tf.shape(x)[0]])
        bound, gradients = self.gradients_of_update(x, valid)
        self.apply_gradients(gradients)
        self.bound_tracker.update_state(bound, sample_weight=tf.reduce_sum(valid))
        return {"bound": self.bound_tracker.result()}

    def _train_on_block(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        if not indices.dtype.is_integer or indices.shape.rank != 2:
            raise ValueError(
                "x: expected blocks of indices [S, B] into the training set that is held (hold(None) lets it go), got "
                f"{indices.dtype.name} of rank {indices.shape.rank}"
            )
        # Of its shape, not of its values: XLA knows then how often the loop goes round, and a GPU need not be asked.
        rows = tf.shape(indices)[0]

        def one_update(i: tf.Tensor, total: tf.Tensor, failed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            bound = self._update(indices[i])
            failed = tf.where((failed == 0) & ~tf.math.is_finite(bound), self._updates(), failed)
            return i + 1, total + bound * tf.reduce_sum(tf.cast(indices[i] >= 0, tf.float32)), failed

        _, total, failed = tf.while_loop(
            lambda i, *_: i < rows, one_update, (tf.constant(0), tf.constant(0.0), tf.constant(0))
        )
        examples = tf.reduce_sum(tf.cast(indices >= 0, tf.float32))
        self.bound_tracker.update_state(total / examples, sample_weight=examples)
        return {"bound": self.bound_tracker.result(), "nonfinite_update": failed}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The mean bound of images [B, D], k samples, beta = 1, no closed form; noise by seed and examples before."""
        x = self.as_images(inputs.images_in(data))
        seed = rng.stream(self.seed, self.bound_tracker.count, "test")
        noise = self.draw_noise(self._samples(self.k), _examples(x), seed)
        bound = self.objective(self.log_weight_terms(x, noise).log_weights())
        self.bound_tracker.update_state(bound)
        return {"bound": self.bound_tracker.result()}

    def update_from(self, indices: tf.Tensor) -> tf.Tensor:
        """One update from indices [B] into the training set that is held; the mean bound, nats."""
        bound, gradients = self.gradients_of_update(*self.batch_of_update(indices))
        self.apply_gradients(gradients)
        return bound

    # The stages of the update that comes next; what is random in them depends on its number and the seed alone.

    def batch_of_update(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images [B, D] of the training set that is held, and 1 for each, [B], or 0 where the index is -1: padding."""
        assert self.images is not None
        x = self.images.batch(tf.maximum(indices, 0), self._seed_of_update("binarize"))
        return x, tf.cast(indices >= 0, tf.float32)

    def noise_of_update(self, batch: int | tf.Tensor) -> list[tf.Tensor]:
        """As `draw_noise`, for the samples of every example of a batch."""
        return self.draw_noise(self.samples_per_example, batch, self._seed_of_update("posterior"))

    def inputs_of_update(self, x: tf.Tensor, valid: tf.Tensor) -> estimators.Inputs:
        """What the estimator is given for images x [B, D] with valid [B] = 1: x, noise, weights and uniform numbers."""
        uniform = rng.uniform([_examples(x)], self._seed_of_update("estimator"))
        return x, self.noise_of_update(_examples(x)), valid / tf.reduce_sum(valid), uniform

    def gradients_of_update(self, x: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The mean bound over the images x [B, D] with valid [B] = 1, nats, and its gradients by the estimator."""
        return self.estimator(self, self.objective, *self.inputs_of_update(x, valid))

    def apply_gradients(self, gradients: list[tf.Tensor]) -> None:
        """One step of the optimizer, upwards."""
        # On a CPU every update waits for the last gradient (a zero is made of all): else XLA copies weights still to be
        # read in the backward pass, and k = 1 takes 0.71 ms an update instead of 0.63.
        zero = 0.0 if hardware.on_gpu() else 0.0 * tf.add_n([tf.reshape(g, [-1])[0] for g in gradients])
        self.optimizer.apply([zero - g for g in gradients], self.trainable_variables)

    def _samples(self, k: int) -> int:
        return k * getattr(self.objective, "groups", 1)

    def _updates(self) -> tf.Tensor:
        return tf.cast(self.optimizer.iterations.value, tf.int32)

    def _seed_of_update(self, stream: str) -> tf.Tensor:
        return rng.stream(self.seed, self._updates(), stream)


def _examples(x: tf.Tensor) -> int | tf.Tensor:
    """B of x [B, D], also where it is not known before the function runs."""
    return x.shape[0] or tf.shape(x)[0]


def _as_seed(seed: Seed) -> tf.Tensor:
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape != (2,):
        raise ValueError(f"seed: expected two integers, got shape {list(seed.shape)}")
    return seed
