"""Average precision of all models that find objects: boxes, masks, boxes in space."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from geodl.base.options import as_bool
from geodl.ops.average_precision import mean_precision
from geodl.train.device import net_device
from geodl.train.evaluate import evaluate

if TYPE_CHECKING:
    from geodl.models.base import TorchModel
    from geodl.tasks.base import Batch, Task
    from geodl.tasks.objects import PrecisionMeter


class PrecisionScores:
    """Scores by class name; ``average_precision_score`` of a TorchModel calls :meth:`_precision`.

    A class that no object of the scored chips has is NaN.
    """

    def _precision(
        self,
        task: Task,
        meter: PrecisionMeter,
        mean: bool,
        *,
        progress: bool = False,
        batches: Iterable[Batch] | None = None,
    ) -> dict[str, float] | float:
        """Average precision by class name, or its mean over the classes that occur.

        Parameters
        ----------
        task
            Says from which score on an object counts, and which duplicates are dropped.
        meter
            Gathers what was found and what is true.
        batches
            None takes the validation set.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        model, averaged = cast("TorchModel", self), as_bool(mean, "mean")
        data = model._need_data("average_precision_score()")
        if batches is None:
            batches = data.valid_loader(task.collate)
        evaluate(model.net, task, batches, net_device(model.net), meter=meter, progress=progress)
        scores = meter.by_class()
        if averaged:
            return mean_precision(scores)
        return dict(zip(task.classes.names, scores.tolist(), strict=True))

    def score_for_package(self) -> dict[str, Any]:
        """What ``average_precision_score()`` gives for the classes that occur."""
        scores: dict[str, float] = self.average_precision_score()  # type: ignore[attr-defined]
        known = {name: score for name, score in scores.items() if not math.isnan(score)}
        return {"average_precision_score": known}
