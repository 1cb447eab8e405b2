"""What the detectors with queries share: arguments, and how each makes its network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_int, check_known
from geodl.core.classes import ClassTable
from geodl.models.coco_weights import COCO_WEIGHTS, build_over, coco_option
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.resnet_backbones import ResNetBackbones
from geodl.nets.backbones import Backbone, check_backbone
from geodl.nets.coco_queries import RT_DETR_BACKBONE
from geodl.nets.queries import QueryNet, cells
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

_DEFAULT_BACKBONE = "resnet50"
# Queries give each object once; twins that training has not told apart yet overlap nearly wholly.
_TWIN_OVERLAP = 0.7
# Of its 32 groups of channels each has two at least: the coarsest map may be a single place.
_WIDTH_STEP = 64

DEFORMABLE_DEFAULTS: Mapping[str, int] = {
    "num_queries": 300, "width": 256, "encoder_layers": 6, "decoder_layers": 6,
}  # fmt: skip
REAL_TIME_DEFAULTS: Mapping[str, int] = {
    "num_queries": 300, "width": 256, "encoder_layers": 1, "decoder_layers": 6,
    "denoising_queries": 100,
}  # fmt: skip


class MakesTransformer(Protocol):
    """One of the functions of ``nets.queries`` that make a transformer over a backbone."""

    def __call__(self, body: Backbone, classes: int, options: Mapping[str, Any]) -> Any: ...


class QueryDetector(ResNetBackbones, DetectorModel):
    """A detector with queries; a subclass says which transformer, and its numbers."""

    # Queries know places and sizes as shares of the tile.
    variable_tile = False

    option_defaults: ClassVar[Mapping[str, int]]
    keywords: ClassVar[tuple[str, ...]]
    transformer: ClassVar[MakesTransformer]
    coco_name: ClassVar[str] = ""
    """Of weights of the whole network, which ``coco_weights`` asks for; empty where are none."""

    def __init__(
        self,
        data: Any,
        backbone: str = _DEFAULT_BACKBONE,
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        offered = (COCO_WEIGHTS,) if self.coco_name else ()
        check_known(kwargs, (*self.option_defaults, *offered), name, of=type(self))
        check_data_fits(data, name, self.kind, self.dataset_types)
        backbone = check_backbone(backbone or _DEFAULT_BACKBONE)
        parameters = {
            "backbone": backbone,
            **query_options(kwargs, self.option_defaults),
            **(coco_option(kwargs, backbone, RT_DETR_BACKBONE) if offered else {}),
        }
        self._setup(data, parameters, pretrained_path)

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"Kwargs": query_options(parameters, cls.option_defaults)}

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
        options = query_options(parameters, cls.option_defaults)
        if "denoising_queries" in options:
            # These choose their queries among the places of a tile.
            options["num_queries"] = min(options["num_queries"], cells(tile_px))

        def make(backbone: Backbone) -> QueryNet:
            return QueryNet(backbone, cls.transformer(backbone, len(classes), options))

        net, loaded = build_over(
            make, cls.coco_name, parameters=parameters, bands=bands, pretrained=pretrained
        )
        return net, ObjectTask(classes, nms_overlap=_TWIN_OVERLAP), loaded


def query_options(given: Mapping[str, Any], defaults: Mapping[str, int]) -> dict[str, int]:
    """Checked numbers; what is missing has its default.

    Parameters
    ----------
    given
        May hold other keys; they play no part.
    defaults
        ``DEFORMABLE_DEFAULTS`` or ``REAL_TIME_DEFAULTS``.

    Raises
    ------
    OptionError
        A number outside its domain.
    """
    least = {"denoising_queries": 0}
    values = {
        name: as_int(given.get(name, default), name, minimum=least.get(name, 1))
        for name, default in defaults.items()
    }
    if values["width"] % _WIDTH_STEP:
        raise OptionError(f"width={values['width']} is not a multiple of {_WIDTH_STEP}.")
    return values
