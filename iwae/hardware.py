"""What TensorFlow computes on."""

import os

import tensorflow as tf


def describe() -> str:
    """The GPUs, or the CPU with the number of cores that this process may use."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(names) or f"CPU, {_cores()} cores"


def threads() -> int:
    """Threads of one operation; the last bits of results depend on them."""
    return tf.config.threading.get_intra_op_parallelism_threads() or _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
