"""SingleShotDetector: boxes from anchors on chosen grids, in one pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float, as_int, check_choice, check_known
from geodl.core.classes import ClassTable
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.model import check_backend
from geodl.models.object_sizes import box_sizes
from geodl.nets.anchors import AnchorLayout, check_layout, choose_layout
from geodl.nets.backbones import (
    backbone_names,
    check_backbone,
    make_backbone,
    timm_names,
    transformer_names,
)
from geodl.nets.ssd import LossOptions, SingleShotNet
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

_DEFAULT_BACKBONE = "resnet34"


class SingleShotDetector(DetectorModel):
    """Single-shot detector (Liu et al. 2016, 1512.02325).

    Parameters
    ----------
    data
        From ``prepare_data``.
    grids
        Cells along each side of the chip, one number per grid: ``[4, 2, 1]``, or ``[9]`` where
        nine objects fit side by side. None chooses grids, and where ``zooms`` and ``ratios`` are
        left as they are these too, from the sizes of the objects in the data.
    zooms
        Sizes of the anchors of each cell, in cells.
    ratios
        Factors of their width and height, each with each zoom.
    backbone
        One of ``supported_backbones``; None is resnet34.
    drop
        Share of features dropped in training, against overfitting; 0 up to below 1.
    bias
        Starting score of the head before the sigmoid: -4 says that an object is in few cells.
    focal_loss
        Let all cells count, easy ones little; otherwise the hardest of the empty ones count.
    pretrained_path
        A saved model to start from.
    location_loss_factor
        Weight of the box loss, between 0 and 1; the class loss has the rest. None adds both.
    ssd_version
        2: the grids read a feature pyramid and share a deeper head, which small objects need.
        1: each grid reads the backbone's own map of its resolution, with a head of its own.
    backend
        ``"pytorch"``.

    Raises
    ------
    NotSupportedError
        Another backend, or a backbone that does not exist.
    OptionError, UnknownOptionError
        An argument outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    variable_tile = False

    def __init__(
        self,
        data: Any,
        grids: Sequence[int] | None = None,
        zooms: Sequence[float] = [1.0],
        ratios: Sequence[Sequence[float]] = [[1.0, 1.0]],
        backbone: str | None = None,
        drop: float = 0.3,
        bias: float = -4.0,
        focal_loss: bool = False,
        pretrained_path: str | os.PathLike[str] | None = None,
        location_loss_factor: float | None = None,
        ssd_version: int = 2,
        backend: str = "pytorch",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_backend(backend, args, name)
        check_known(kwargs, (), name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        parameters = {
            "backbone": check_backbone(backbone or _DEFAULT_BACKBONE),
            **_layout_parameters(data, grids, zooms, ratios),
            **_checked(
                {
                    "drop": drop,
                    "bias": bias,
                    "focal_loss": focal_loss,
                    "location_loss_factor": location_loss_factor,
                    "ssd_version": ssd_version,
                }
            ),
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
        layout = check_layout(
            parameters["grids"], parameters["zooms"], parameters["ratios"], tile_px
        )
        own = _checked({key: parameters[key] for key in _DEFAULTS})
        name = str(parameters["backbone"])
        backbone, loaded = make_backbone(name, bands, pretrained)
        net = SingleShotNet(
            backbone,
            layout,
            len(classes),
            tile_px,
            version=own["ssd_version"],
            drop=own["drop"],
            bias=own["bias"],
            losses=LossOptions(own["focal_loss"], own["location_loss_factor"]),
        )
        return net, ObjectTask(classes), loaded

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "backbone": parameters["backbone"],
            "Grids": parameters["grids"],
            "Zooms": parameters["zooms"],
            "Ratios": parameters["ratios"],
            "SSDVersion": parameters["ssd_version"],
        }

    @staticmethod
    def backbones() -> list[str]:
        """Names of usable backbones; those of timm are experimental."""
        return [*backbone_names(), *timm_names()]

    @staticmethod
    def transformer_backbones() -> list[str]:
        """Names of usable transformer backbones; experimental."""
        return list(transformer_names())

    @property
    def supported_backbones(self) -> list[str]:
        """Names of usable backbones."""
        return self.backbones()


_DEFAULTS = ("drop", "bias", "focal_loss", "location_loss_factor", "ssd_version")


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The plain options, each in its domain."""
    drop = as_float(given["drop"], "drop", minimum=0.0, maximum=1.0)
    if drop == 1.0:
        raise OptionError("drop=1 would leave no feature; it lies from 0 to below 1.")
    factor = given["location_loss_factor"]
    if factor is not None:
        factor = as_float(factor, "location_loss_factor", minimum=0.0, maximum=1.0)
        if factor in (0.0, 1.0):
            raise OptionError(
                f"location_loss_factor={factor:g} must lie strictly between 0 and 1, or be None."
            )
    version = as_int(given["ssd_version"], "ssd_version")
    return {
        "drop": drop,
        "bias": as_float(given["bias"], "bias"),
        "focal_loss": as_bool(given["focal_loss"], "focal_loss"),
        "location_loss_factor": factor,
        "ssd_version": check_choice(version, (1, 2), "ssd_version"),
    }


def _layout_parameters(
    data: Any,
    grids: Sequence[int] | None,
    zooms: Sequence[float],
    ratios: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """Anchors as plain lists: those asked for, or those that suit the data."""
    tile_px = data.chip_size
    if grids is not None:
        layout = check_layout(grids, zooms, ratios, tile_px)
    else:
        found = choose_layout(box_sizes(data), tile_px)
        asked = check_layout(list(found.grids), zooms, ratios, tile_px)
        default = asked.zooms == (1.0,) and asked.ratios == ((1.0, 1.0),)
        layout = found if default else asked
    return _plain(layout)


def _plain(layout: AnchorLayout) -> dict[str, Any]:
    return {
        "grids": list(layout.grids),
        "zooms": list(layout.zooms),
        "ratios": [list(pair) for pair in layout.ratios],
    }
