"""The documented keywords of the two-stage detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_float, as_int

REGION_DEFAULTS: Mapping[str, int | float] = {
    "rpn_pre_nms_top_n_train": 2000,
    "rpn_pre_nms_top_n_test": 1000,
    "rpn_post_nms_top_n_train": 2000,
    "rpn_post_nms_top_n_test": 1000,
    "rpn_nms_thresh": 0.7,
    "rpn_fg_iou_thresh": 0.7,
    "rpn_bg_iou_thresh": 0.3,
    "rpn_batch_size_per_image": 256,
    "rpn_positive_fraction": 0.5,
    "box_score_thresh": 0.05,
    "box_nms_thresh": 0.5,
    "box_detections_per_img": 100,
    "box_fg_iou_thresh": 0.5,
    "box_bg_iou_thresh": 0.5,
    "box_batch_size_per_image": 512,
    "box_positive_fraction": 0.25,
}


def region_options(given: Mapping[str, Any]) -> dict[str, int | float]:
    """All keywords with a value in their domain; those not given have their defaults.

    Raises
    ------
    OptionError
        A count below 1, a share outside 0..1, or a background threshold above the foreground's.
    """
    values: dict[str, int | float] = {}
    for name, default in REGION_DEFAULTS.items():
        value = given.get(name, default)
        if isinstance(default, int):
            values[name] = as_int(value, name, minimum=1)
        else:
            values[name] = as_float(value, name, minimum=0.0, maximum=1.0)
    for stage in ("rpn", "box"):
        low, high = f"{stage}_bg_iou_thresh", f"{stage}_fg_iou_thresh"
        if values[low] > values[high]:
            raise OptionError(
                f"{low}={values[low]:g} is above {high}={values[high]:g}: a region would be "
                "object and background."
            )
    return values
