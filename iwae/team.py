"""What one model is trained and evaluated on: devices of this process, and other processes, of one host or several.

The processes are those that the environment variable TF_CONFIG names, as TensorFlow's own strategies have it, and each
is started with the same command. The first one leads: it alone writes files, and tells the others what to take part in.
All that goes between them goes through one collective operation of TensorFlow, which fails in every process once one of
them is gone.
"""

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from iwae import device, hardware
from iwae.sections import RunError

Message = tuple[str, dict[str, np.ndarray]]  # what is next, and the numbers that belong to it

_GROUP = 1509  # any number would do
PIECE = 1 << 24  # bytes of a message that are sent at once, a power of two: an operation has less than 2 GiB


class Team:
    """The processes as one of them sees them: it is number `index` of `size`, counted from 0, with so many devices.

    Raises:
        ConfigError: it does not have them.
    """

    def __init__(self, devices: int = 1, index: int = 0, size: int = 1):
        self.devices, self.index, self.size = hardware.devices(devices), index, size
        # In the first process: whether another one wants training to stop, whether all others are in `hear` or on their
        # way to it, and whether they have gone home.
        self.wished, self.heard, self.dismissed = False, True, size == 1
        self._lost = False  # whether another one was not there when it was wanted

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """The tensors [...] of all processes, which have one shape: [size, ...]."""
        if self.size == 1:
            return values[None]
        if tf.executing_eagerly():
            return self._gathered(values)
        # Out of the graph: there a collective operation waits for one in a loop of the same name in the other process.
        found = tf.py_function(self._gathered, [values], values.dtype)
        return tf.ensure_shape(found, [self.size, *values.shape])

    def _gathered(self, values: tf.Tensor) -> tf.Tensor:
        same = zlib.crc32(f"{values.dtype.name}{values.shape}".encode()) >> 1  # for one shape in all processes
        try:
            with tf.device("CPU:0"):  # what is on a GPU is copied
                return tf.raw_ops.CollectiveGatherV2(
                    input=values[None], group_size=self.size, group_key=_GROUP, instance_key=same, ordering_token=[]
                )
        except tf.errors.OpError:
            self._lost = True
            raise

    def tell(self, what: str, **arrays: Any) -> None:
        """Sends a message from the first process to the others; each waits for it in `hear`.

        Whoever tells them of work says so when it is done (`work_done`).
        """
        if self.size > 1:
            self.heard = False
            stream = io.BytesIO()
            np.savez(stream, what=np.array(what), **arrays)  # type: ignore[arg-type]  # keys, not options
            content = np.frombuffer(stream.getbuffer(), np.uint8)
            whole, rest = divmod(len(content), PIECE)
            self.wished |= bool(self._of_all([whole, rest, 0])[1:, 2].any())
            for piece in np.split(content, range(PIECE, len(content), PIECE)):
                self._of_all(np.pad(piece, (0, _padded(len(piece)) - len(piece))).view(np.int32))

    def work_done(self) -> None:
        """In the first process: the others have done what they were told and go back to `hear`."""
        self.heard = True

    def hear(self, wish: bool = False) -> Message:
        """The next message of the first process. `wish`: whether this one wants training to stop."""
        whole, rest, _ = map(int, self._of_all([0, 0, wish])[0])
        sizes = [PIECE] * whole + [_padded(rest)] * (rest > 0)
        content = b"".join(self._of_all(np.zeros(size // 4, np.int32))[0].tobytes() for size in sizes)
        with np.load(io.BytesIO(content[: whole * PIECE + rest]), allow_pickle=False) as found:
            arrays = dict(found)
        return str(arrays.pop("what")), arrays

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """The first process's work; the others are told of its end, and whether it was a good one.

        Raises:
            RunError: another one is gone.
        """
        with self.losses_told():
            try:
                yield
            except BaseException:
                # In the midst of work the others wait for something else, until this process ends.
                if self.heard and not (self.dismissed or self._lost):
                    with contextlib.suppress(tf.errors.OpError):
                        self.tell("failed")
                raise
            self.dismiss()

    def dismiss(self) -> None:
        """Tells the others, once, that there is no more for them to do."""
        if not self.dismissed:
            self.tell("done")
            self.dismissed = True

    @contextlib.contextmanager
    def losses_told(self) -> Iterator[None]:
        """Makes one line of the errors that come when another process is gone.

        Raises:
            RunError: in their place.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if not self._lost:
                raise
            raise RunError(
                f"TF_CONFIG: expected {self.size} processes to the end, but another one than this, number "
                f"{self.index}, is gone; the same command for each continues"
            ) from error

    def _of_all(self, numbers: Any) -> np.ndarray:
        return self.gather(tf.constant(numbers, tf.int32)).numpy()


def _padded(length: int) -> int:
    """A power of two of bytes: each length would be another collective operation."""
    return max(64, 1 << (length - 1).bit_length())


def of_process(devices: int) -> Team:
    """The team of this process, whose ports `device.start_tensorflow` has opened; ConfigError as for `Team`."""
    index, members = device.members()
    return Team(devices, index, max(1, len(members)))
