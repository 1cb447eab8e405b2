"""ConnectNet: linear features, learned together with their orientation."""

from __future__ import annotations

from geodl.models.multi_task_road_extractor import MultiTaskRoadExtractor


class ConnectNet(MultiTaskRoadExtractor):
    """Segmentation of linear features that also learns orientation.

    The same as :class:`geodl.models.multi_task_road_extractor.MultiTaskRoadExtractor`, in
    arguments too; under a name of its own for rivers, tracks and the like.
    """
