"""The TensorFlow adapter (Keras 3 on the TensorFlow backend). Importing this package imports neither."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, final

from xbackend_fl.adapter.pads import pads_of
from xbackend_fl.errors import AdapterError, RefusedInput

if TYPE_CHECKING:
    from xbackend_fl.adapter.contract import Array
    from xbfl_tensorflow.trainer import TensorFlowTrainer

_CODE = {
    "epsilon": "epsilon={0}",
    "ceil_mode": "padding='same' covers what ceil_mode={0} covers only at some sizes; pad at the end by hand at others",
    "input width": "feed it {0} features: it takes as many as the layer or the example in front of it has",
    "strides": "strides={0}",
    "dilations": "dilation_rate={0}",
    "kernel_shape": "kernel_size={0}",
    "group": "groups={0}",
    "alpha": "negative_slope={0}  (LeakyReLU) or alpha={0}",
    "linear_before_reset": "reset_after=bool({0})",
    "approximate": "keras.ops.gelu(x, approximate={0!r} == 'tanh')",
    "num_heads": "num_heads={0}",
    "num_groups": "groups={0}",
    "hidden_size": "units={0}",
    "bias": "use_bias={0}  (center in normalisations)",
    "weight": "scale={0}",
    "causal": "use_causal_mask=bool({0})",
    "axis": "axis, counted in channels-first order, is {0}",
    "trainable": "trainable={0}",
}

_STATISTICS = {
    "kept in training": "trainable=False, or training=False in its call inside a subclassed model",
    "averaged in training": "trainable=True, and no training=False in its call",
}

_BY_OPERATOR = {
    ("Gemm", "width"): "units={0}",
    ("Conv", "width"): "filters={0}",
    ("ConvTranspose", "width"): "filters={0}",
    ("Gather", "width"): "output_dim={0}",
    ("Gather", "vocabulary"): "input_dim={0}",
    ("LSTM", "width"): "units={0}",
    ("GRU", "width"): "units={0}",
    ("RNN", "width"): "units={0}",
    ("MaxPool", "kernel_shape"): "pool_size={0}",
    ("AveragePool", "kernel_shape"): "pool_size={0}",
}


@final
class TensorFlowAdapter:
    """Speaks TensorFlow: ``keras.Model`` in, :class:`TensorFlowTrainer` out."""

    name = "tensorflow"

    @property
    def version(self) -> str:
        """Framework and version."""
        return f"tensorflow {_tensorflow_version()}, keras {version('keras')}"

    def handles(self, model: object) -> bool:
        """Whether ``model`` is a Keras model, a ``tf.Module`` or a loaded SavedModel."""
        keras, legacy = sys.modules.get("keras"), sys.modules.get("tf_keras")
        if keras is not None and isinstance(model, keras.Model):
            return True
        if legacy is not None and isinstance(model, legacy.Model):
            return True
        tf = sys.modules.get("tensorflow")
        return tf is not None and isinstance(model, tf.Module | tf.__internal__.tracking.AutoTrackable)

    def load(self, path: Path) -> object:
        """Load a SavedModel directory."""
        if not (path / "saved_model.pb").is_file():
            raise RefusedInput(
                f"{path} is not a SavedModel directory",
                hint="name the folder that holds saved_model.pb, or the code: tensorflow:net.py:build",
            )
        import_frameworks()
        import tensorflow as tf

        return tf.saved_model.load(path)

    def open(self, model: object, example: Sequence[Array]) -> TensorFlowTrainer:
        """Describe ``model`` and make it ready; see the contract."""
        import_frameworks()
        from xbfl_tensorflow.trainer import TensorFlowTrainer

        return TensorFlowTrainer(model, example)

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """Keras code that sets ``attribute``."""
        if attribute == "pads":
            return f"keras: {node}: {_padding(operator, pads_of(value))}"
        usual = _CODE.get(attribute, f"{attribute} = {value!r} of {operator}")
        code = _BY_OPERATOR.get((operator, attribute), usual).format(value)
        if attribute == "statistics":
            code = _STATISTICS[str(value)]
        return f"keras: {node}: {code}"

    def configure_process(self, threads: int, seed: int) -> None:
        """Thread count, deterministic kernels, memory growth on a GPU, seed of initial weights."""
        import_frameworks()
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        # TensorFlow refuses these once any operation has run, as in a process that is shared.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, enable=True)


def _padding(operator: str, pads: tuple[tuple[int, int], ...]) -> str:
    """Code for (before, after) per spatial axis."""
    rank = len(pads)
    amounts = str(pads if rank > 1 else pads[0])
    if not any(number for pair in pads for number in pair):
        return "padding='valid'"
    if operator == "ConvTranspose":
        return f"padding='valid' and Cropping{rank}D({amounts}) behind it"
    if operator == "MaxPool":
        every = ((0, 0), *pads, (0, 0))
        return f"padding='valid' behind keras.ops.pad(x, {every}, constant_values=-math.inf)"
    return f"padding='valid' behind ZeroPadding{rank}D({amounts})"


def _tensorflow_version() -> str:
    """Version of whichever distribution provides the ``tensorflow`` package."""
    for distribution in ("tensorflow", "tensorflow-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")


def set_environment() -> None:
    """Tell TensorFlow and Keras, which read the environment when they are imported, how to start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow leaves oneDNN out on processors without AVX-512, where a step of ConvNet2 takes 107 ms without and 50 with it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Else it takes all of a GPU's memory, which another worker's framework may want.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def import_frameworks() -> None:
    """Import TensorFlow and Keras without their start-up messages.

    Raises:
        AdapterError: Keras already runs on another backend in this process.
    """
    set_environment()
    if "tensorflow" not in sys.modules:
        with _silent_stderr():
            import tensorflow as tf
        # Its advice on retracing is for loops over shapes; our steps are traced once per configuration.
        tf.get_logger().setLevel("ERROR")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise AdapterError(
            f"Keras runs on {keras.backend.backend()!r} in this process; the adapter needs 'tensorflow'",
            hint="set KERAS_BACKEND=tensorflow before anything imports keras",
        )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: TensorFlow's C++ writes there before any log level applies."""
    saved = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


adapter = TensorFlowAdapter()
