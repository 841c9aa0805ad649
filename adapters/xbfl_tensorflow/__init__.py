"""The TensorFlow adapter (Keras 3 on the TensorFlow backend). Importing this package imports neither."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, final

from xbackend_fl.adapter.words import code
from xbackend_fl.errors import AdapterError, RefusedInput
from xbackend_fl.hushing import stderr_aside
from xbfl_tensorflow.words import WORDS

if TYPE_CHECKING:
    from xbackend_fl.adapter.example import Example
    from xbfl_tensorflow.trainer import TensorFlowTrainer


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

    def load_model(self, model: object, example: Example) -> TensorFlowTrainer:
        """Describe ``model`` and make it ready; see the contract."""
        import_frameworks()
        from xbfl_tensorflow.trainer import TensorFlowTrainer

        return TensorFlowTrainer(model, example)

    def number_anew(self) -> None:
        """Count layers without a name from the first; see the contract."""
        import_frameworks()
        from xbfl_tensorflow.preserve import number_anew

        number_anew()

    def unbuilt(self, model: object) -> AbstractContextManager[None]:
        """Layers without variables are left without; see the contract."""
        import_frameworks()
        from xbfl_tensorflow.preserve import unbuilt_kept

        return unbuilt_kept(model)

    def hint(self, node: str, operator: str, attribute: str, value: object) -> str:
        """Keras code that sets ``attribute``."""
        return f"keras: {node}: {code(WORDS, operator, attribute, value)}"

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
        AdapterError: Keras runs on another backend in this process, or is to run on one that is not there.
    """
    set_environment()
    if "tensorflow" not in sys.modules:
        with stderr_aside():
            import tensorflow as tf
        # Its advice on retracing is for loops over shapes; our steps are traced once per configuration.
        tf.get_logger().setLevel("ERROR")
    try:
        import keras
    except (ImportError, ValueError) as error:
        if getattr(error, "name", "") == "keras":
            raise
        raise AdapterError(
            f"Keras cannot start on the backend {os.environ['KERAS_BACKEND']!r}: {error}",
            hint="set KERAS_BACKEND=tensorflow, or leave it out",
        ) from error

    if keras.backend.backend() != "tensorflow":
        raise AdapterError(
            f"Keras runs on {keras.backend.backend()!r} in this process; the adapter needs 'tensorflow'",
            hint="set KERAS_BACKEND=tensorflow before anything imports keras",
        )


adapter = TensorFlowAdapter()
