"""RTDetrV2: queries chosen among the places of a feature pyramid, in real time."""

from __future__ import annotations

from geodl.models.query_detector import REAL_TIME_DEFAULTS, QueryDetector
from geodl.nets.coco_queries import RT_DETR
from geodl.nets.queries import rt_detr


class RTDetrV2(QueryDetector):
    """RT-DETR v2 (Lv et al. 2024, 2407.17140).

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
        ``num_queries`` (300): most objects on a tile, at most its places at strides 8, 16 and 32;
        ``width`` (256) of the transformer, a multiple of 64; ``encoder_layers`` (1);
        ``decoder_layers`` (6); ``denoising_queries`` (100): noisy copies of the objects that
        training learns to put right, 0 for none; ``coco_weights`` (False): start from the weights
        that its authors have trained on COCO, with the backbone ``"resnet50d"``, which then starts
        frozen.

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

    option_defaults = REAL_TIME_DEFAULTS
    keywords = tuple(REAL_TIME_DEFAULTS)
    transformer = staticmethod(rt_detr)
    coco_name = RT_DETR
