"""What TensorFlow computes on."""

import tensorflow as tf

from iwae.device import cores
from iwae.sections import ConfigError


def describe() -> str:
    """The GPUs, or the CPU with the number of cores that this process may use."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(names) or f"CPU, {cores()} cores"


def threads() -> int:
    """Threads of one operation; the last bits of results depend on them."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


def devices(count: int) -> list[str]:
    """Names of the first `count` GPUs, or where there are none of the CPUs that `device.start_tensorflow` made.

    Raises:
        ConfigError: there are fewer.
    """
    gpus = tf.config.list_logical_devices("GPU")
    found = gpus or tf.config.list_logical_devices("CPU")
    if count > len(found):
        what = "the GPUs here" if gpus else "the CPU devices that TensorFlow was started with, one a core"
        raise ConfigError(f"devices: expected at most {len(found)}, {what}, got {count}")
    return [device.name for device in found[:count]]
