"""Arguments of the detectors with queries, and how each makes its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from geodl.base.errors import OptionError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.nets.backbones import Backbone, make_backbone
from geodl.nets.queries import QueryNet, cells
from geodl.tasks.base import Task
from geodl.tasks.objects import ObjectTask

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


def build_queries(
    make: Callable[[Backbone, int, Mapping[str, Any]], Any],
    defaults: Mapping[str, int],
    *,
    classes: ClassTable,
    bands: int,
    tile_px: int,
    parameters: Mapping[str, Any],
    pretrained: bool,
) -> tuple[nn.Module, Task, bool]:
    """Network, task, and whether pretrained weights are in the backbone.

    Parameters
    ----------
    make
        One of the functions of ``nets.queries`` that make a transformer.
    """
    backbone, loaded = make_backbone(str(parameters["backbone"]), bands, pretrained)
    options = query_options(parameters, defaults)
    if "denoising_queries" in options:
        # These choose their queries among the places of a tile.
        options["num_queries"] = min(options["num_queries"], cells(tile_px))
    net = QueryNet(backbone, make(backbone, len(classes), options))
    return net, ObjectTask(classes, nms_overlap=_TWIN_OVERLAP), loaded
