"""HEDEdgeDetector: edges by holistically nested detection."""

from __future__ import annotations

import os
from typing import Any

from geodl.base.options import check_known
from geodl.models.edge_detector import EdgeDetector
from geodl.nets.edges import HED


class HEDEdgeDetector(EdgeDetector):
    """Edge detector with an answer at every stage (Xie and Tu 2015, 1504.06375).

    Every class of the labels but background is edge.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder, one of ``supported_backbones``.
    pretrained_path
        A saved model to start from.
    **kwargs
        None are known; others are refused.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    UnknownOptionError
        A keyword.
    ModelDataError
        Data of another kind.
    """

    network = HED

    def __init__(
        self,
        data: Any,
        backbone: str = "vgg19",
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_known(kwargs, (), type(self).__name__, of=type(self))
        self._setup_detector(data, backbone, pretrained_path)
