"""DETReg: queries that look at a few places of a feature pyramid."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from geodl.base.options import as_int, check_known
from geodl.core.classes import ClassTable
from geodl.models.contracts import check_data_fits
from geodl.models.detector import DetectorModel
from geodl.models.query_options import DEFORMABLE_DEFAULTS, build_queries, query_options
from geodl.models.resnet_backbones import ResNetBackbones
from geodl.nets.backbones import check_backbone
from geodl.nets.queries import QueryNet, deformable_detr
from geodl.tasks.base import Task


class DETReg(ResNetBackbones, DetectorModel):
    """Deformable DETR (Zhu et al. 2021, 2010.04159), as DETReg trains it (2106.04550).

    Training compares all queries with all objects at once and takes the cheapest assignment
    (Hungarian matching), so there are no anchors to choose.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        One of ``supported_backbones``.
    pretrained_path
        A saved model to start from.
    **kwargs
        ``num_queries`` (300): most objects on a tile; ``width`` (256) of the transformer, a
        multiple of 64; ``encoder_layers`` (6); ``decoder_layers`` (6).

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    MissingPackageError
        transformers is not installed.
    """

    # Queries know places and sizes as shares of the tile.
    variable_tile = False

    def __init__(
        self,
        data: Any,
        backbone: str = "resnet50",
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_known(kwargs, DEFORMABLE_DEFAULTS, name)
        check_data_fits(data, name, self.kind, self.dataset_types)
        parameters = {
            "backbone": check_backbone(backbone or "resnet50"),
            **query_options(kwargs, DEFORMABLE_DEFAULTS),
        }
        self._setup(data, parameters, pretrained_path)

    def pretrain(self, epochs: int = 10, lr: float | slice = 2e-4, regions: int = 30) -> None:
        """The first stage of DETReg: learn to find objects from images alone, before ``fit``.

        The queries learn to find the regions that selective search proposes (Uijlings et al.
        2013), and to tell what the backbone makes of each by itself. Labels of the data are not
        looked at; backbone and class scores stay as they are.

        Parameters
        ----------
        epochs
            Passes over the training set; a line is printed after each.
        lr
            Learning rate.
        regions
            Most regions of a chip, largest first.

        Raises
        ------
        OptionError
            An argument outside its domain.
        ModelDataError
            The model was opened without data.
        """
        from geodl.models.region_pretraining import pretrain

        pretrain(
            cast(QueryNet, self.net),
            self._need_data("pretrain()"),
            self._parameters,
            epochs=as_int(epochs, "epochs", minimum=1),
            lr=lr,
            regions=as_int(regions, "regions", minimum=1),
        )

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
        return build_queries(
            deformable_detr,
            DEFORMABLE_DEFAULTS,
            classes=classes,
            bands=bands,
            tile_px=tile_px,
            parameters=parameters,
            pretrained=pretrained,
        )
