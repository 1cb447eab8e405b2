"""Parameters and networks of the two-stage detectors, of boxes and of masks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from geodl.models.coco_weights import COCO_WEIGHTS, build_over, coco_option
from geodl.models.object_sizes import finest_anchor_px
from geodl.models.region_options import REGION_DEFAULTS, region_options
from geodl.nets.regions import RegionNet

REGION_KEYWORDS = (*REGION_DEFAULTS, COCO_WEIGHTS)


def region_parameters(data: Any, backbone: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the network of a data set is made of: keywords that were given, and its anchors.

    Raises
    ------
    OptionError
        A keyword outside its domain, or weights of COCO for another backbone.
    """
    return {
        "backbone": backbone,
        **region_options(given),
        **coco_option(given, backbone),
        "finest_anchor_px": finest_anchor_px(data),
    }


def build_regions(
    kind: type[RegionNet],
    coco_name: str,
    classes: int,
    bands: int,
    *,
    parameters: Mapping[str, Any],
    pretrained: bool,
) -> tuple[RegionNet, bool]:
    """A network of :func:`region_parameters`, and whether pretrained weights are in it.

    Parameters
    ----------
    coco_name
        Of the weights of all of it, where ``parameters`` ask for them.
    """
    make = partial(
        kind,
        classes=classes,
        finest_px=float(parameters["finest_anchor_px"]),
        options=region_options(parameters),
        deep=bool(parameters.get(COCO_WEIGHTS, False)),
    )
    return build_over(make, coco_name, parameters=parameters, bands=bands, pretrained=pretrained)
