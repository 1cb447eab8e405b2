"""Which dataset type a folder holds, from what lies in it and what the caller says."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodl.base.errors import DataWarning, FormatError, SourceNotFoundError
from geodl.base.files import read_json
from geodl.formats.base import ESRI_EMD, ESRI_MAP, ESRI_STATS
from geodl.formats.folder import open_export
from geodl.formats.point_blocks import STATISTICS, read_statistics
from geodl.formats.points_legacy import is_legacy

# The factor in this file is of labels that another reader made from the images.
SUPERRES_FACTOR = "esri_superres_labels_downsample_factor.txt"
# Names that readers leave beside an export and that are no part of it.
CACHE_NAMES = frozenset({"models", "data", "meta", "crop", "embeddings"})

# Types that a caller may give to an export whose metadata names another one.
_DECIDED_BY_CALLER = frozenset(
    {
        "superres",
        "Export_Tiles",
        "CycleGAN",
        "Pix2Pix",
        "ChangeDetection",
        "ObjectTracking",
        "PSETAE",
        "SR3",
        "3DRCNet",
    }
)
_ALIASES = {"Labelled_Tiles": "Labeled_Tiles"}
_CLOUD_SUFFIXES = (".las", ".laz")
_ROOT_FILES = (ESRI_EMD, ESRI_MAP, ESRI_STATS)


def infer_dataset_type(path: str | os.PathLike[str], given: str | None = None) -> str:
    """The dataset type of a folder.

    What an export itself says goes before ``given``, with a warning where they differ, except for
    types that are another use of the same files (super-resolution from ``Export_Tiles``, tracking
    from ``RCNN_Masks``, ...).

    Parameters
    ----------
    path
        Folder of training data. Nothing in it is changed.
    given
        The caller's ``dataset_type``; None infers it.

    Raises
    ------
    SourceNotFoundError
        There is no such folder.
    FormatError
        Neither the folder nor the caller says it; or metadata that is broken.
    """
    path = Path(path)
    if not path.exists():
        raise SourceNotFoundError(f"There is no folder {path} with training data; check the path.")
    if not path.is_dir():
        raise FormatError(f"{path} is a file; give the folder that holds the training data.")
    given = _ALIASES.get(given, given) if given is not None else None
    return _refined(path, _stated(path, given))


def is_export(path: Path) -> bool:
    """Whether all three files that mark an export are there."""
    return all((path / name).is_file() for name in _ROOT_FILES)


def read_metadata(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file. Raises FormatError on anything else."""
    if not path.is_file():
        return {}
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise FormatError(f"{path} holds {type(facts).__name__}; expected a JSON object.")
    return facts


def sub_folders(path: Path) -> list[Path]:
    """Sub-folders by name, without hidden ones and those that readers leave as caches."""
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir()
        and not entry.name.startswith(".")
        and entry.name.lower() not in CACHE_NAMES
    )


def _stated(path: Path, given: str | None) -> str:
    """The type before the refinements that depend on further folders and keys."""
    if given in _DECIDED_BY_CALLER:
        return str(given)
    emd = read_metadata(path / ESRI_EMD)
    mode = read_metadata(path / ESRI_STATS).get("MetaDataMode") or emd.get("MetaDataMode")
    if isinstance(mode, str) and (given is None or is_export(path)):
        if given not in (None, mode):
            warnings.warn(
                f"dataset_type={given!r} is not used: {path} says of itself that it is {mode}. "
                "Leave it out, or export in the other format.",
                DataWarning,
                stacklevel=4,
            )
        multidimensional = mode == "RCNN_Masks" and emd.get("IsMultidimensional") is True
        return "PSETAE" if multidimensional else mode
    if given is not None:
        return given
    return _by_parts(path)


def _by_parts(path: Path) -> str:
    """The type of a folder of several exports, or of one without Esri's files."""
    for parts, name in (("A", "B"), "CycleGAN"), (("train_A_C", "train_B"), "WNet_cGAN"):
        if all(is_export(path / part) for part in parts):
            return name
    found = points_type(path)
    if found is not None:
        return found
    for variable in sub_folders(path)[:1]:
        for dimension in sub_folders(variable)[:1]:
            emd = read_metadata(dimension / ESRI_EMD)
            if emd:
                return "ClimaX" if _is_series_of_tiles(emd) else "PSETAE"
    if any(entry.suffix.lower() in _CLOUD_SUFFIXES for entry in path.iterdir()):
        raise FormatError(
            f"{path} holds point clouds, not blocks of them; cut them with "
            "export_point_dataset(folder, output) and give the output."
        )
    # Opening explains what is missing, and where.
    return open_export(path).metadata_mode


def _is_series_of_tiles(emd: Mapping[str, Any]) -> bool:
    return emd.get("IsMultidimensional") is True and emd.get("MetaDataMode") == "Export_Tiles"


def _refined(path: Path, name: str) -> str:
    second = (path / "images2").is_dir()
    if name == "Export_Tiles":
        labelled = (path / "labels").is_dir() and not (path / SUPERRES_FACTOR).is_file()
        return "Pix2Pix" if second or labelled else "superres"
    if name == "Classified_Tiles" and second:
        return "ChangeDetection"
    if name == "MultiLabeled_Tiles":
        captions = read_metadata(path / ESRI_EMD).get("SingleLabelFieldFound") == "Caption"
        return "ImageCaptioning" if captions else name
    return name


def points_type(path: Path) -> str | None:
    """``PointCloud`` or ``PointCloudOD`` for an export of points, else None."""
    folder = next((f for f in (path / "train", path) if (f / STATISTICS).is_file()), None)
    if folder is None:
        legacy = is_legacy(path) and (path / "train").is_dir()
        return "PointCloud" if legacy else None
    try:
        objects = "tileStatistics" in read_statistics(folder / STATISTICS)
    except FormatError:
        objects = path.suffix.lower() == ".pcotd"
    return "PointCloudOD" if objects else "PointCloud"
