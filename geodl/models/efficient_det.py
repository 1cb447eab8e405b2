"""EfficientDet: light networks for boxes, by effdet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from geodl.base.errors import NotSupportedError
from geodl.base.options import as_float, as_int, check_known, nearest
from geodl.core.classes import ClassTable
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.model import check_backend
from geodl.models.object_sizes import finest_anchor_px
from geodl.nets.efficient import make_efficientdet
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

BACKBONES = tuple(f"efficientdet_lite{number}" for number in range(5))
# Stride of the finest level.
_FINEST_PX = 8
# The documented score counts these detections.
_DETECT_THRESH, _IOU_THRESH = 0.2, 0.1


class EfficientDet(DetectorModel):
    """Light detector with a weighted, two-way pyramid (Tan et al. 2020, 1911.09070).

    Chips of any format, data type and number of bands are taken.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        One of ``supported_backbones``; None is efficientdet_lite0.
    pretrained_path
        A saved model to start from.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        Surplus arguments.
    ModelDataError
        Data of another kind.
    MissingPackageError
        effdet is not installed.
    """

    variable_tile = False

    def __init__(
        self,
        data: Any,
        backbone: str | None = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend("pytorch", args, name)
        check_known(kwargs, ("backbone", "pretrained_path"), name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        parameters = {
            "backbone": _checked(backbone or BACKBONES[0]),
            "anchor_scale": finest_anchor_px(data) / _FINEST_PX,
        }
        self._setup(data, parameters, pretrained_path)

    @classmethod
    def build(
        cls,
        *,
        classes: ClassTable,
        bands: int,
        tile_px: int,
        parameters: Mapping[str, Any],
        pretrained: bool,
        batch_size: int | None,
    ) -> tuple[nn.Module, Task, bool]:
        net, loaded = make_efficientdet(
            f"tf_{_checked(str(parameters['backbone']))}",
            len(classes),
            bands,
            tile_px,
            as_float(parameters["anchor_scale"], "anchor_scale", minimum=0.1, maximum=100.0),
            pretrained,
        )
        return net, ObjectTask(classes), loaded

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return list(BACKBONES)

    def average_precision_score(  # type: ignore[override]  # documented with one argument
        self, mean: bool = False
    ) -> dict[str, float] | float:
        """Average precision on the validation set: scores from 0.2, overlaps from 0.1.

        Parameters
        ----------
        mean
            False: a dict by class name; True: the mean over the classes that occur in the truth.
        """
        return super().average_precision_score(_DETECT_THRESH, _IOU_THRESH, mean)

    def predict(  # type: ignore[override]  # documented with batch_size as a keyword
        self,
        image_path: str | os.PathLike[str],
        threshold: float = 0.5,
        nms_overlap: float = 0.1,
        return_scores: bool = True,
        visualize: bool = False,
        resize: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Any], ...]:
        check_known(kwargs, ("batch_size",), "predict()", of=self.predict)
        batch = as_int(kwargs.get("batch_size", 1), "batch_size", minimum=1)
        return super().predict(
            image_path, threshold, nms_overlap, return_scores, visualize, resize, batch
        )


def _checked(name: str) -> str:
    text = str(name).strip()
    if text not in BACKBONES:
        raise NotSupportedError(
            f"There is no backbone {name!r}.{nearest(text, BACKBONES)} Offered: "
            f"{', '.join(BACKBONES)}."
        )
    return text
