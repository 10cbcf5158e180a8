"""What TensorFlow computes on."""

import contextlib
import math
import os
from pathlib import Path

import tensorflow as tf

from iwae.device import cores
from iwae.sections import ConfigError, shown


def describe() -> str:
    """The GPUs, or the CPU with the number of cores that this process may use."""
    gpus = tf.config.get_visible_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(names) or f"CPU, {cores()} cores"


def on_gpu() -> bool:
    """Whether there is a GPU that TensorFlow may use, and so computes on."""
    return bool(tf.config.get_visible_devices("GPU"))


def memory() -> float:
    """Bytes that the CPU's computations may take; infinite on a GPU, whose allocator tells when it has no more."""
    found = [math.inf]
    if not on_gpu():
        with contextlib.suppress(ValueError, OSError, AttributeError):  # no system that tells
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        with contextlib.suppress(ValueError, OSError):  # no container, or one without a limit
            found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def threads() -> int:
    """Threads of one operation; the last bits of results depend on them."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


def devices(count: int) -> list[str]:
    """Names of the first `count` GPUs, or where there are none of the CPUs that `device.start_tensorflow` made.

    Raises:
        ConfigError: there are fewer.
    """
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"devices: expected an integer >= 1, got {shown(count)}")
    gpus = tf.config.list_logical_devices("GPU")
    found = gpus or tf.config.list_logical_devices("CPU")
    if count > len(found):
        what = "the GPUs here" if gpus else "the CPU devices that TensorFlow was started with, one a core"
        raise ConfigError(f"devices: expected at most {len(found)}, {what}, got {count}")
    return [device.name for device in found[:count]]
