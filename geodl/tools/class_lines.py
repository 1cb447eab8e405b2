"""Centre lines as a product of models of roads and edges, straight from the regions of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geodl.base.models import MODELS
from geodl.io.raster_view import crop
from geodl.io.source import open_source
from geodl.io.writers import write_features
from geodl.runtime.ledger import Ledger
from geodl.tools.extract_lines import extract_lines
from geodl.tools.job import Job

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def gives_lines(job: Job) -> bool:
    """Whether the features of this job's model are lines rather than polygons."""
    return bool(getattr(MODELS.get(job.contract.model_name), "gives_lines", False))


def finish_lines(job: Job, ledger: Ledger, path: Path) -> GeoDataFrame:
    """Make the features from a run's regions and write them.

    Returns
    -------
    GeoDataFrame with ``Class`` and the columns of :func:`geodl.functions.extract_lines`.
    """
    frame, extent = job.plan.store_window, job.plan.extent
    store = open_source(str(ledger.folder / "regions.zarr"))
    lines = extract_lines(crop(store, extent.shift(-frame.row, -frame.col)))
    names = {entry.value: entry.name for entry in job.contract.classes}
    lines.insert(0, "Class", np.array([names[v] for v in lines["ClassValue"]], dtype=object))
    write_features(lines, path)
    lines.attrs["path"] = str(path)
    return lines
