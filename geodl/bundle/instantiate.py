"""From a definition's plain parameters to a network and its task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geodl.base.errors import BundleError, GeodlError
from geodl.base.models import MODELS
from geodl.base.options import check_choice
from geodl.base.payloads import PAYLOADS
from geodl.bundle.read import Bundle
from geodl.bundle.weights import check_fit, load_exactly
from geodl.core.contract import ModelContract
from geodl.nets.normalization import batch_to_group_norm

NORM_KEY = "norm"
"""Name in the model parameters of how the network normalises; the façade's, not the network's."""


def apply_norm(net: nn.Module, norm: str) -> None:
    """``"batch"`` leaves the network; ``"group"`` replaces every BatchNorm, ``"group_head"`` those
    outside the (pretrained) backbone.

    Raises
    ------
    OptionError
        Another name.
    """
    check_choice(norm, ("batch", "group", "group_head"), NORM_KEY)
    if norm != "batch":
        keep = net.backbone if norm == "group_head" else None
        batch_to_group_norm(net, keep if isinstance(keep, nn.Module) else None)


def build_network(
    contract: ModelContract, parameters: Mapping[str, Any], where: str
) -> tuple[nn.Module, Any]:
    """The untrained network and the task that a definition describes; fetches nothing.

    Raises
    ------
    BundleError
        A class, backbone or parameter that geodl does not know; names the definition.
    """
    try:
        return _build(contract, parameters)
    except _BUILD_ERRORS as error:
        raise BundleError(f"{where}: ModelParameters describe no network: {error}") from error


# The parameters come from a file, so any of these means that the file is wrong.
_BUILD_ERRORS = (GeodlError, TypeError, ValueError, LookupError, AttributeError, RuntimeError)


def _build(contract: ModelContract, parameters: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    own = {key: value for key, value in parameters.items() if key != NORM_KEY}
    with torch.random.fork_rng([]), warnings.catch_warnings():
        # Of a width of 0, say; its weights are then refused.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors", UserWarning)
        net, task, _ = MODELS[contract.model_name].build(
            classes=contract.classes,
            bands=contract.inputs,
            tile_px=contract.tile_px,
            parameters=own,
            pretrained=False,
            batch_size=None,
        )
    apply_norm(net, str(parameters.get(NORM_KEY, "batch")))
    return net, task


def _check_size(bundle: Bundle, state: Mapping[str, Tensor]) -> None:
    """Compare weights and network before any memory is taken for it: parameters may claim much.

    A class that cannot be built without memory is compared later, like all.
    """
    try:
        with torch.device("meta"):
            net, _ = _build(bundle.contract, bundle.parameters)
    except _BUILD_ERRORS:
        return
    check_fit(net, state, bundle.where)


def instantiate(bundle: Bundle) -> tuple[nn.Module, Any]:
    """The trained network of a package, in eval mode on the CPU, and its task.

    Raises
    ------
    BundleError
        See :func:`build_network`; or weights that are foreign, damaged or of another network.
    """
    if bundle.payload is not None:
        net, task = PAYLOADS[bundle.payload](bundle)
        return net.eval(), task
    state = bundle.trained_weights()
    _check_size(bundle, state)
    net, task = build_network(bundle.contract, bundle.parameters, bundle.where)
    load_exactly(net, state, bundle.where)
    return net.eval(), task
