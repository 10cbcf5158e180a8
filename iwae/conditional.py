"""The model of images given their classes, p(x | y): q(z_1 | x, y), p(x | z_1, y), and the prior N(0, I) or p(z_L | y).

The classes travel with the images, as one-hot columns [n, C] behind the pixels: an example is [D + C], and that is what
the model is given wherever an `IWAE` is given images. So do they behind z_1, where it is decoded.
"""

import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from iwae import layers
from iwae.model import IWAE, Seed

PRIORS = ("standard", "labels")


@keras.saving.register_keras_serializable("iwae")
class ConditionalIWAE(IWAE):
    """An `IWAE` of images given their classes; log weights, bounds and likelihoods are those of p(x | y).

    It takes the arguments of `IWAE` as well; a network of your own has [N, D + C] and [N, D_1 + C] as inputs of the
    outermost encoder and decoder.

    Args:
        classes: C. The labels are 0 .. C - 1.
        prior: of the highest stochastic layer: "standard", N(0, I), or "labels", a Gaussian of its own for each class.

    An example, with images [n, 784] and labels [n]:

        model = iwae.ConditionalIWAE(input_dim=784, latent_units=(50,), hidden_units=((200, 200),), k=5, classes=10)
        model.compile(optimizer="adam")
        x = model.with_labels(images, labels)  # [n, 794]
        model.fit(x, batch_size=20, epochs=10)
        model.sample(3, labels=[7, 7, 7])
    """

    prior_network: layers.GaussianLayer | None = None

    def __init__(self, *args: Any, classes: int, prior: str = "standard", **kwargs: Any):
        if not isinstance(classes, numbers.Integral) or isinstance(classes, bool) or classes < 1:
            raise ValueError(f"classes: expected an integer >= 1, got {classes!r}")
        if prior not in PRIORS:
            raise ValueError(f"prior: expected one of {', '.join(PRIORS)}, got {prior!r}")
        self.classes = classes  # the networks are built for it
        super().__init__(*args, **kwargs)
        self._config |= {"classes": classes, "prior": prior}
        if prior == "labels":
            if getattr(self.objective, "analytic_kl", False):
                raise ValueError(f"prior: expected 'standard' with objective {self.objective!r}, got 'labels'")
            seeds = np.random.SeedSequence([self.seed, 1])
            self.prior_network = layers.GaussianLayer((), self.latent_units[-1], seeds, name="p_z")
            layers.check_outputs("prior", self.prior_network, classes, [self.latent_units[-1]] * 2)

    @property
    def decoder_variables(self) -> list[keras.Variable]:
        """Trainable variables of p, from the data upwards."""
        return super().decoder_variables + (self.prior_network.trainable_variables if self.prior_network else [])

    # ---- examples: images with their classes -----------------------------------------------------------------------

    def with_labels(self, images: ArrayLike, labels: ArrayLike) -> np.ndarray:
        """Examples [n, D + C], float32, of images as `IWAE` takes them and labels [n], integers of 0 .. C - 1."""
        pixels, labels = super().as_images(images).numpy(), np.asarray(labels)
        if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
            raise ValueError(f"labels: expected {len(pixels)} integers, got {labels.dtype} {list(labels.shape)}")
        if wrong := labels[(labels < 0) | (labels >= self.classes)].tolist():
            raise ValueError(f"labels: expected 0 to {self.classes - 1}, got {wrong[0]}")
        return np.concatenate([pixels, np.eye(self.classes, dtype=np.float32)[labels]], axis=1)

    def as_images(self, x: ArrayLike) -> tf.Tensor:
        """Examples as float32 [n, D + C]; raises ValueError if they are none."""
        examples, width = tf.convert_to_tensor(x), self.input_dim + self.classes
        if examples.shape.rank is not None and (examples.shape.rank != 2 or examples.shape[1] not in (None, width)):
            raise self._refusal(f"shape {list(examples.shape)}")
        if not examples.dtype.is_floating:
            raise self._refusal(f"dtype {examples.dtype.name}")
        return tf.cast(tf.reshape(examples, [-1, width]), tf.float32)

    def check(self, x: ArrayLike, stacklevel: int = 2) -> None:
        """As that of `IWAE`; raises ValueError also if the last C columns are not one-hot."""
        values = self.as_images(x).numpy()
        y = values[:, self.input_dim :]
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise self._refusal(f"other numbers in the last {self.classes} columns")
        super().check(values[:, : self.input_dim], stacklevel + 1)

    def _refusal(self, given: str) -> ValueError:
        expected = f"[B, {self.input_dim} + {self.classes}], images and one-hot labels as `with_labels` gives them"
        return ValueError(f"x: expected {expected}, got {given}")

    # ---- what a condition changes ----------------------------------------------------------------------------------

    def joined(self, z: Any, x: Any) -> tf.Tensor:
        """z_1 [..., D_1] of examples x [..., D + C] with their classes behind it: [..., D_1 + C]."""
        z, y = tf.convert_to_tensor(z), self._classes_of(x)
        y = tf.broadcast_to(y, tf.concat([tf.shape(z)[:-1], [self.classes]], axis=0))
        return tf.ensure_shape(tf.concat([z, y], axis=-1), [*z.shape[:-1], z.shape[-1] + self.classes])

    def from_prior(self, epsilon: tf.Tensor, x: Any) -> tf.Tensor:
        """z_L [..., D_L] made of standard normal noise: a draw of the prior of examples x [..., D + C]."""
        if self.prior_network is None:
            return epsilon
        mean, log_std = self.prior_network(self._classes_of(x))
        return mean + tf.exp(log_std) * epsilon

    def log_prior(self, z: tf.Tensor, x: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
        """log p(z_L), or log p(z_L | y) of examples x [B, D + C]: z_L [..., D_L] -> [...], nats."""
        if self.prior_network is None:
            return super().log_prior(z, x, units)
        mean, log_std = self.prior_network(self._classes_of(x))
        return layers.gaussian_log_prob(z, mean, log_std, units)

    def standardized(self, x: tf.Tensor) -> tf.Tensor:
        """Examples [..., D + C] as the encoder sees them, or images [..., D] alone: the pixels standardized."""
        return tf.concat([super().standardized(x[..., : self.input_dim]), x[..., self.input_dim :]], axis=-1)

    def log_likelihood(self, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        """log p(x | z_1, y): examples x [B, D + C], z_1 [k, B, D_1] -> [k, B], nats."""
        return super().log_likelihood(x[..., : self.input_dim], self.joined(z, x))

    def likelihood_parameters(self, z: tf.Tensor) -> Any:
        """As those of `IWAE`, of z_1 joined with the classes, [..., D_1 + C]."""
        if z.shape[-1] != self.latent_units[0] + self.classes:
            expected = f"[..., {self.latent_units[0]} + {self.classes}] as `joined` and `sample_latents` give it"
            raise ValueError(f"z: expected {expected}, got shape {list(z.shape)}")
        return super().likelihood_parameters(z)

    def sample_latents(self, n: int, seed: Seed, x: ArrayLike | None = None) -> tf.Tensor:
        """n samples z_1 from the prior, joined with the classes of examples x, or with all in turn. -> [n, D_1 + C]."""
        return super().sample_latents(n, seed, self._of_labels(n, np.arange(n) % self.classes) if x is None else x)

    def sample(self, n: int, seed: Seed = None, labels: ArrayLike | None = None) -> tf.Tensor:
        """n images of the classes `labels` [n], or of all classes in turn; else as that of `IWAE`. -> [n, D]."""
        x = None if labels is None else self._of_labels(n, labels)
        return self.decode_mean(self.sample_latents(n, (self.seed, 0) if seed is None else seed, x))

    def _of_labels(self, n: int, labels: ArrayLike) -> np.ndarray:
        return self.with_labels(np.zeros([n, self.input_dim], np.float32), labels)

    def _classes_of(self, x: Any) -> tf.Tensor:
        return tf.cast(x[..., self.input_dim :], tf.float32)
