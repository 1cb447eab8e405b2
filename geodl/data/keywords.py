"""The keywords that `prepare_data` takes besides its arguments, and for what data they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from geodl.base.errors import UnknownOptionError
from geodl.base.options import check_known

_POINTS = "point clouds (PointCloud, PointCloudOD)"
_SERIES = "image time series (PSETAE)"
_CLIMATE = "weather and climate rasters (ClimaX)"

# Documented keywords of all dataset types. A builder names those that it reads.
DOCUMENTED: dict[str, str] = {
    "n_masks": "panoptic segmentation (Panoptic_Segmentation, for MaXDeepLab)",
    "downsample_factor": "super-resolution (superres)",
    "min_points": f"{_POINTS} and {_SERIES}",
    "extra_features": _POINTS,
    "remap_classes": _POINTS,
    "classes_of_interest": _POINTS,
    "background_classcode": _POINTS,
    "stratify": "single-label classification, object detection and pixel classification",
    "timesteps_of_interest": _SERIES,
    "channels_of_interest": _SERIES,
    "n_temporal": _SERIES,
    "n_temporal_dates": _SERIES,
    "num_workers": "all data",
    "forecast_timesteps": _CLIMATE,
    "hrs_each_step": _CLIMATE,
    "split": "image chips",
    "norm_pct": "image chips",
}

# What every data set of image chips reads.
CHIP_KEYWORDS = frozenset({"num_workers", "split", "norm_pct"})


def check_keywords(
    given: Mapping[str, Any],
    known: Collection[str],
    dataset_type: str,
    of: Callable[..., Any] | None = None,
) -> Mapping[str, Any]:
    """Return ``given`` if a dataset type reads all of it.

    Parameters
    ----------
    of
        The function whose keywords they are.

    Raises
    ------
    UnknownOptionError
        A keyword that is for other data (says for which), or that nothing reads (names the
        nearest known one).
    """
    for name in given:
        if name not in known and name in DOCUMENTED:
            raise UnknownOptionError(
                f"prepare_data: the keyword {name!r} is for {DOCUMENTED[name]}; this data set is "
                f"{dataset_type}, which takes {', '.join(sorted(known))}. Leave it out."
            )
    check_known(given, known, f"prepare_data for {dataset_type}", of=of)
    return given
