"""TensorFlow's start: quiet where it has nothing to say, ready for a GPU, and for other processes, where there are."""

import contextlib
import ctypes
import functools
import json
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from iwae.sections import ConfigError, shown
from iwae.signals import handled_by

# What TensorFlow writes to standard error on every start, whatever the user does. Anything else is shown.
_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog"
    rb"|I0000 "
    rb"|E0000 .*(failed call to cuInit|Unable to register cu\w+ factory)"
    rb"|W0000 .*computation placer already registered"
    rb"|.*This TensorFlow binary is optimized to use available CPU instructions"
    rb"|To enable the following instructions:)"
)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def members() -> tuple[int, list[str]]:
    """Which process this is of those that TF_CONFIG names, from 0, and the address HOST:PORT of each; (0, []) without.

    Raises:
        ConfigError: TF_CONFIG is no cluster of workers, a chief perhaps among them, with a task that is one of these.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        given = json.loads(text or "{}")
        if given == {}:
            return 0, []
        cluster, kind, index = given["cluster"], given["task"]["type"], given["task"]["index"]
        found = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
        addresses = found["chief"] + found["worker"]
        if (
            set(cluster) - set(found)
            or index < 0
            or len({*addresses}) < len(addresses)
            or not all(re.fullmatch(r"[^/\s]+:\d+", address) for address in addresses)
        ):
            raise ValueError
        return addresses.index(found[kind][index]), addresses
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        expected = """'{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'"""
        raise ConfigError(f"TF_CONFIG: expected {expected}, got {shown(text)}") from None


@functools.cache
def _open_ports(index: int, addresses: tuple[str, ...]) -> None:
    """Makes the processes of TF_CONFIG ready for collective operations; nothing else of the strategy is used.

    Raises:
        ConfigError: the port is taken, or TensorFlow has computed before.
    """
    import tensorflow as tf

    try:
        # It waits in C++, where no handler of Python's would run, and takes SIGTERM for itself, until we take it back.
        with handled_by(signal.SIG_DFL):
            tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"TF_CONFIG: expected ports to open before anything is computed, got: {reason}") from None


def start_tensorflow(threads: int | None = None, devices: int = 1, begin: bool = True) -> None:
    """Imports TensorFlow and sets the devices up; the first thing that anything with a model does.

    GPUs get memory as they need it, and full float32 products: their shorter ones (TF32) move log weights by a
    hundredth to a tenth of a nat (docs/speed.md).

    Args:
        threads: of one operation, on which the last bits of results depend; None: all cores, or as set before.
        devices: where there is no GPU, into how many devices the CPU is divided, at most one a core.
        begin: whether the devices start, after which neither can be set.

    Raises:
        RuntimeError: the devices have started before, with other settings.
        ConfigError: TF_CONFIG is no such thing as `members` takes.
    """
    index, addresses = members()
    # Warnings and errors; of a process that is gone many lines, which are told as one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if len(addresses) > 1 else "1")
    if begin and len(addresses) > 1 and not _open_ports.cache_info().currsize:
        place = f"process {index} of {len(addresses)}, counted from 0 ({addresses[index]})"
        print(f"{place}, waits for the others; Ctrl-C ends that, SIGTERM does not", file=sys.stderr, flush=True)
    _keep_freed_memory()
    _use_wide_vectors()
    with _without_noise():
        import tensorflow as tf

        # It warns of a function that is compiled often; here there is one for each number of samples, on purpose.
        logging.getLogger("tensorflow").addFilter(_is_no_retracing)
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            with contextlib.suppress(RuntimeError):  # already in use, with settings that are the user's own
                tf.config.experimental.set_memory_growth(gpu, True)
        if devices > 1 and not gpus:
            (cpu,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration()] * min(devices, cores())
            tf.config.set_logical_device_configuration(cpu, parts)
        use_tf32(False)
        if begin and len(addresses) > 1:
            _open_ports(index, tuple(addresses))
        if begin:
            tf.constant(0.0)  # starts the devices, which has noise of its own


def use_tf32(wanted: bool) -> None:
    """Whether a GPU rounds the factors of products to 11 bits, in what is compiled from now on or runs op by op."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(wanted)


@contextlib.contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """`use_tf32` for a while; at the end it is as it was."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    use_tf32(wanted)
    try:
        yield
    finally:
        use_tf32(before)


def _keep_freed_memory() -> None:
    """Lets glibc's allocator keep what a thread frees; it must be said before TensorFlow's threads begin.

    Otherwise the buffers of every matrix product are given back to the system and asked for again: 280 page faults an
    update in `fit`, where k = 1 then takes 1.20 ms instead of 0.66, k = 5 2.1 instead of 1.3, and k = 50 9.6 instead of
    8.0 (one layer, two cores).
    """
    m_top_pad, m_mmap_threshold = -2, -3  # of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        if "MALLOC_TOP_PAD_" not in os.environ:
            malloc = ctypes.CDLL(None)
            malloc.mallopt(m_top_pad, 64 << 20)  # a thread's heap, which is that large at most, is taken as a whole
            malloc.mallopt(m_mmap_threshold, 32 << 20)  # where glibc's own moving threshold would end, now not moved


def _use_wide_vectors() -> None:
    """Lets XLA make vectors of 512 bits, not of 256, on AMD's processors with AVX-512; said before it compiles.

    On an EPYC of family 26 an update with k = 1 takes 0.36 ms instead of 0.40, with k = 50 4.3 instead of 4.6, and
    L_5000 of an image 7.0 instead of 7.7 (two layers: 11.0 and 12.6). Intel's processors may lower their clock for such
    vectors. A version of TensorFlow that does not know the flag would end the process: so of known versions only.
    """
    flag, given = "--xla_cpu_prefer_vector_width", os.environ.get("XLA_FLAGS", "")
    with contextlib.suppress(OSError, metadata.PackageNotFoundError):  # no Linux, or TensorFlow by another name
        known = re.match(r"2\.(18|19|20|21)\.", metadata.version("tensorflow"))
        processor = Path("/proc/cpuinfo").read_text()
        if known and "AuthenticAMD" in processor and " avx512f " in processor and flag not in given:
            os.environ["XLA_FLAGS"] = f"{given} {flag}=512".strip()


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Holds back standard error, C++ code's too, and lets through at the end what is not known noise."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            with contextlib.suppress(OSError):
                os.write(2, b"".join(line for line in held if not _NOISE.match(line)))
