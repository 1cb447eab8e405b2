"""The keyword of detectors that can go on from weights of COCO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_bool
from geodl.nets.backbones import Backbone, make_backbone
from geodl.nets.coco import COCO_BACKBONE, with_coco

Net = TypeVar("Net", bound=nn.Module)

COCO_WEIGHTS = "coco_weights"


def coco_option(
    given: Mapping[str, Any], backbone: str, trained: str = COCO_BACKBONE
) -> dict[str, bool]:
    """``coco_weights`` of the keywords, False by default; such a network is built differently.

    Parameters
    ----------
    trained
        The backbone that has such weights.

    Raises
    ------
    OptionError
        Another backbone than the one that was trained on COCO.
    """
    wanted = as_bool(given.get(COCO_WEIGHTS, False), COCO_WEIGHTS)
    if wanted and backbone != trained:
        raise OptionError(
            f"{COCO_WEIGHTS}=True: these weights are of the backbone {trained!r}, not of "
            f"{backbone!r}."
        )
    return {COCO_WEIGHTS: wanted}


def build_over(
    make: Callable[[Backbone], Net],
    coco_name: str,
    *,
    parameters: Mapping[str, Any],
    bands: int,
    pretrained: bool,
) -> tuple[Net, bool]:
    """A network over its backbone, and whether pretrained weights are in it.

    Parameters
    ----------
    make
        The network of a backbone.
    coco_name
        Of the weights of all of it, where ``parameters`` ask for them.
    """
    name = str(parameters["backbone"])
    if parameters.get(COCO_WEIGHTS, False):
        return with_coco(lambda: make(make_backbone(name, bands, False)[0]), coco_name, pretrained)
    backbone, loaded = make_backbone(name, bands, pretrained)
    return make(backbone), loaded
