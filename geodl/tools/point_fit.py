"""Whether a cloud is what a model was trained on."""

from __future__ import annotations

import warnings

from geodl.base.errors import DataWarning, ModelDataError
from geodl.core.points import PointInput, other_unit
from geodl.infer.points import needed_dimensions
from geodl.io.cloud import Cloud
from geodl.io.crs import crs_label, full_turn, metres_per_unit


def check_dimensions(cloud: Cloud, spec: PointInput, model: str) -> None:
    """Hold files to what a model takes. Raises ModelDataError, which names the file."""
    needed = needed_dimensions(spec)
    for file in cloud.files:
        missing = [name for name in needed if name not in file.dimensions]
        if missing:
            raise ModelDataError(
                f"{model} takes {', '.join(needed)}; {file.name} (point format "
                f"{file.layout.format_id}) has no {missing[0]}."
            )


def check_unit(cloud: Cloud, spec: PointInput, model: str) -> None:
    """Hold the unit of a cloud to that of a model's training data.

    Raises
    ------
    ModelDataError
        Both are known and differ.
    """
    if cloud.crs is None:
        return
    unit = metres_per_unit(cloud.crs)
    if other_unit(spec.unit_m, unit):
        raise ModelDataError(
            f"{model} was trained on blocks of {spec.block_size:g} units of {spec.unit_m:g} m; a "
            f"unit of {cloud.name} ({crs_label(cloud.crs)}) is {unit:g} m. Bring the points into "
            "a CRS of the model's unit first, with open_points(..., "
            "pipeline=[filters.reprojection]) for example."
        )
    if spec.unit_m is None and full_turn(cloud.crs) is None and other_unit(unit, 1.0):
        warnings.warn(
            f"{model} does not say in which unit its blocks of {spec.block_size:g} are; in "
            f"{cloud.name} they are {spec.block_size * unit:g} m wide. If it was trained in "
            "metres, bring the points into a CRS in metres first.",
            DataWarning,
            stacklevel=4,
        )
