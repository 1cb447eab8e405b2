"""Detectors as torchvision has trained them on COCO, to go on from with other classes and bands.

They are torchvision's second versions (Li et al. 2021, 2111.11429): ResNet-50 with batch
normalisation throughout.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import get_model_weights

from geodl.nets.weights import with_pretrained

COCO_BACKBONE = "resnet50"
FASTER_RCNN = "fasterrcnn_resnet50_fpn_v2"
MASK_RCNN = "maskrcnn_resnet50_fpn_v2"
RETINA_NET = "retinanet_resnet50_fpn_v2"

_FIRST_FILTERS = "detector.backbone.body.body.conv1.weight"
# Layers with an output for each of COCO's classes.
_OF_CLASSES = (".box_predictor.", ".mask_fcn_logits.", ".classification_head.cls_logits.")

Net = TypeVar("Net", bound=nn.Module)


def with_coco(make: Callable[[], Net], name: str, pretrained: bool) -> tuple[Net, bool]:
    """A network with the weights of COCO where they can be had, and whether it has them.

    Parameters
    ----------
    make
        Makes our network of the same structure, with random weights.
    name
        One of the names above, which ``geodl weights fetch`` takes too.
    pretrained
        False looks nowhere.

    Warns
    -----
    OfflineWarning
        The weights cannot be had.
    """
    return with_pretrained(partial(_made, make, name), name, pretrained)


def pretrained_builders(name: str) -> list[Callable[[bool], nn.Module]]:
    """What loads the weights of a name; empty where it is none of the above."""
    known = name in (FASTER_RCNN, MASK_RCNN, RETINA_NET)
    return [partial(_made, nn.Identity, name)] if known else []


def _made(make: Callable[[], Net], name: str, pretrained: bool) -> Net:
    net = make()
    if pretrained:
        net.load_state_dict(fitting(net.state_dict(), _state(name)), strict=False)
    return net


def fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights by the names that they have in our network.

    The outputs for classes are left out, and so are layers of another shape: those for other
    numbers of anchors. First filters are repeated over the bands.

    Parameters
    ----------
    own
        What our network has.
    state
        What torchvision's has.
    """
    found = {}
    for key, value in state.items():
        name = f"detector.{key}".replace("detector.backbone.body.", "detector.backbone.body.body.")
        if name == _FIRST_FILTERS and name in own:
            value = adapt_input_conv(own[name].shape[1], value)
        of_classes = any(part in name for part in _OF_CLASSES)
        if name in own and own[name].shape == value.shape and not of_classes:
            found[name] = value
    return found


def _state(name: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = get_model_weights(name)["COCO_V1"].get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise OSError(f"the weights of {name} are damaged: {error}") from error
    return state
