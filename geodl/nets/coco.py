"""Detectors as others have trained them on COCO, to go on from with other classes and bands.

Those of torchvision are its second versions (Li et al. 2021, 2111.11429): ResNet-50 with batch
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

from geodl.nets import coco_queries
from geodl.nets.coco_queries import RT_DETR, rt_detr_state
from geodl.nets.weights import with_pretrained

COCO_BACKBONE = "resnet50"
FASTER_RCNN = "fasterrcnn_resnet50_fpn_v2"
MASK_RCNN = "maskrcnn_resnet50_fpn_v2"
RETINA_NET = "retinanet_resnet50_fpn_v2"

_FIRST_FILTERS = ("detector.backbone.body.body.conv1.weight", coco_queries.FIRST_FILTERS)
# Layers with an output for each of COCO's classes.
_OF_CLASSES = (
    ".box_predictor.", ".mask_fcn_logits.", ".classification_head.cls_logits.",
    *coco_queries.OF_CLASSES,
)  # fmt: skip

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
    known = name in (FASTER_RCNN, MASK_RCNN, RETINA_NET, RT_DETR)
    return [partial(_made, nn.Identity, name)] if known else []


def _made(make: Callable[[], Net], name: str, pretrained: bool) -> Net:
    net = make()
    if pretrained:
        net.load_state_dict(fitting(net.state_dict(), _state(name)), strict=False)
    return net


def fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that suit our network.

    Outputs for classes are left out, and so are layers of another shape: those for other numbers
    of anchors or queries. First filters are repeated over the bands.

    Parameters
    ----------
    own
        What our network has.
    state
        What was trained, by the names of ours.
    """
    found = {}
    for name, value in state.items():
        if name in _FIRST_FILTERS and name in own:
            value = adapt_input_conv(own[name].shape[1], value)
        of_classes = any(part in name for part in _OF_CLASSES)
        if name in own and own[name].shape == value.shape and not of_classes:
            found[name] = value
    return found


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of torchvision's detectors by the names of ours."""
    inside = "detector.backbone.body."
    return {
        f"detector.{key}".replace(inside, f"{inside}body."): value for key, value in state.items()
    }


def _state(name: str) -> dict[str, Tensor]:
    if name == RT_DETR:
        return rt_detr_state()
    try:
        return renamed(
            get_model_weights(name)["COCO_V1"].get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
        )
    except pickle.UnpicklingError as error:
        raise OSError(f"the weights of {name} are damaged: {error}") from error
