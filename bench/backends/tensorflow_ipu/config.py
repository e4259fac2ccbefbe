"""The configuration of TensorFlow for IPU, attaching to a device, and its exceptions as the suite's."""

from __future__ import annotations

import contextlib
from typing import Any, ContextManager, Dict, List, Optional, Tuple

from bench.backends import _ipu
from bench.backends._ipu import errors
from bench.backends._ipu.variables import engine_options
from bench.cases.case import Case, Settings
from bench.cases.errors import Refused, Unavailable
from bench.cases.ipu_rules import ipus, stages
from bench.devices import ipu

NONE_FREE = ("Could not find an available device", "Timed out trying to find an available device")
NO_SUCH = "No device matches the requested configuration"


def attach(case: Case, settings: Settings) -> None:
    """Configure the system, which attaches to a device; wait for a free one for `wait_s` of the settings."""
    import tensorflow as tf

    def attempt() -> None:
        try:
            _config(case, settings).configure_ipu_system()
        except tf.errors.OpError as error:
            # Otherwise TensorFlow would ignore a second, equal configuration, attached or not.
            release()
            text = str(error.message).splitlines()[0]
            if any(message in text for message in NONE_FREE):
                raise ipu.NoneFree(text) from None
            if NO_SUCH in text:
                raise Unavailable(f"not present: a device of {ipus(case, settings)} IPUs ({text})") from None
            raise

    poplar = settings.poplar
    with translated(settings):
        if poplar.ipu_model or poplar.compile_only:
            attempt()
        else:
            ipu.attach(attempt, ipus(case, settings), poplar.wait_s, poplar.device_id)


def release() -> None:
    """Release the device, in any state."""
    import tensorflow as tf
    from tensorflow.python.ipu import config

    with contextlib.suppress(tf.errors.OpError):
        config.reset_ipu_configuration()


def translated(settings: Settings) -> ContextManager[None]:
    import tensorflow as tf

    meanings = ((tf.errors.ResourceExhaustedError, "memory"), (tf.errors.OpError, errors.BY_TEXT))
    return errors.translated(lambda error: errors.meaning(error, meanings, settings))


def _config(case: Case, settings: Settings) -> Any:
    """The configuration. Raises Refused, with the name of the attribute, for a value that TensorFlow refuses."""
    from tensorflow.python.ipu import config

    tree = config.IPUConfig()
    popdist = _ipu.popdist("tensorflow", case, settings)
    if popdist:
        # Under poprun, popdist selects the devices of this instance.
        popdist.set_ipu_config(tree, stages(settings), configure_device=True)
    for name, value in _values(case, settings, selecting=popdist is None).items():
        *path, last = name.split(".")
        parent = tree
        for part in path:
            parent = getattr(parent, part)
        try:
            setattr(parent, last, value)
        except (TypeError, ValueError) as error:
            raise Refused(f"IPUConfig.{name} = {value!r}: {error}") from None
    return tree


def _values(case: Case, settings: Settings, selecting: bool = True) -> Dict[str, Any]:
    """The attributes of IPUConfig that the settings change, by their dotted names."""
    from tensorflow.python.ipu import config

    poplar = settings.poplar
    values: Dict[str, Any] = {}
    if selecting and poplar.device_id is not None and not (poplar.ipu_model or poplar.compile_only):
        values["select_ipus"] = poplar.device_id
    elif selecting:
        values["auto_select_ipus"] = ipus(case, settings)
    shares = poplar.available_memory_proportion
    convolutions, products = poplib_options(settings, shares[0] if len(shares) == 1 else None)
    engine = engine_options(settings)
    for name, options in (
        ("convolutions.poplar_options", convolutions),
        ("matmuls.poplar_options", products),
        ("compilation_poplar_options", engine),
    ):
        if options:
            values[name] = options
    if not poplar.prefetch or settings.min_latency:
        values["optimizations.prefetch_data_streams"] = False
    if poplar.num_io_tiles:
        values["io_tiles.num_io_tiles"] = poplar.num_io_tiles
        values["io_tiles.place_ops_on_io_tiles"] = True
    if poplar.stochastic_rounding is not None:
        rounding = config.StochasticRoundingBehaviour
        values["floating_point_behaviour.esr"] = rounding.ON if poplar.stochastic_rounding else rounding.OFF
    if poplar.stable_norm:
        values["norms.use_stable_statistics"] = True
    if poplar.max_cross_replica_buffer_size is not None:
        values["optimizations.maximum_cross_replica_sum_buffer_size"] = poplar.max_cross_replica_buffer_size
    if case.mode == "training" and settings.recipe.recompute != "none":
        values["allow_recompute"] = True
    if poplar.compile_only:
        values["device_connection.type"] = config.DeviceConnectionType.PRE_COMPILE
        values["device_connection.version"] = poplar.compile_only
        values["device_connection.enable_remote_buffers"] = True
    return values


def poplib_options(settings: Settings, share: Optional[float]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """The options of Poplar's libraries for convolutions and for matrix products, without defaults."""
    product_type, conv_type = _ipu.partials(settings)
    both = {"availableMemoryProportion": repr(share)} if share is not None else {}
    convolutions = {**both, **({"partialsType": conv_type} if conv_type else {})}
    if settings.poplar.conv_dithering:
        convolutions["enableConvDithering"] = "true"
    return convolutions, {**both, **({"partialsType": product_type} if product_type else {})}


def stage_options(settings: Settings) -> Tuple[List[Any], List[Any]]:
    """The options of each stage, forward and backward; both empty if all stages have the options of the system."""
    from tensorflow.python.ipu.ops import pipelining_ops

    shares = settings.poplar.available_memory_proportion
    if len(shares) <= 1:
        return [], []

    def options(share: float) -> Any:
        convolutions, products = poplib_options(settings, share)
        return pipelining_ops.PipelineStageOptions(convolution_options=convolutions, matmul_options=products)

    # The backward stages are in the order of the forward stages.
    return [options(share) for share in shares[: stages(settings)]], [
        options(share) for share in shares[-stages(settings) :]
    ]
