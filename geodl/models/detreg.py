"""DETReg: queries that look at a few places of a feature pyramid."""

from __future__ import annotations

from typing import cast

from geodl.base.options import as_int
from geodl.models.query_detector import DEFORMABLE_DEFAULTS, QueryDetector
from geodl.nets.queries import QueryNet, deformable_detr


class DETReg(QueryDetector):
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

    option_defaults = DEFORMABLE_DEFAULTS
    keywords = tuple(DEFORMABLE_DEFAULTS)
    transformer = staticmethod(deformable_detr)

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
