"""BDCNEdgeDetector: edges by a bi-directional cascade."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from geodl.models.edge_detector import EdgeDetector
from geodl.nets.edges import BDCN


class BDCNEdgeDetector(EdgeDetector):
    """Edge detector whose stages each learn their own scale (He et al. 2019, 1902.10903).

    Every class of the labels but background is edge.

    Parameters
    ----------
    data
        From ``prepare_data``.
    backbone
        Encoder, one of ``supported_backbones``.
    pretrained_path
        A saved model to start from.

    Raises
    ------
    NotSupportedError
        A backbone that does not exist.
    ModelDataError
        Data of another kind.
    """

    network = BDCN
    # Section 4.1 of the paper.
    losses: ClassVar = {"side_weight": 0.5, "fuse_weight": 1.1, "edge_weight": 1.1}

    def __init__(
        self,
        data: Any,
        backbone: str = "vgg19",
        pretrained_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._setup_detector(data, backbone, pretrained_path)
