"""Checking an export: every fault with its file and the line or key that it stands in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError, GeodlError, OptionError, SourceNotFoundError
from geodl.base.files import read_json
from geodl.base.options import as_float, as_int
from geodl.formats.base import ESRI_EMD, ESRI_MAP, ESRI_STATS, ChipRef
from geodl.formats.chip_format import ChipFormat
from geodl.formats.fault import Fault, Faults
from geodl.formats.folder import CHIPS_AS, IMAGE_SPACES, open_by_roots
from geodl.formats.inference import is_export, sub_folders
from geodl.formats.layouts import LAYOUTS, file_of, layout_of
from geodl.formats.listing import FileTree, chip_refs, chips_of, resolve_line
from geodl.formats.registry import FORMATS
from geodl.formats.validate_chips import check_chips

_ROOTS = (ESRI_EMD, ESRI_STATS, ESRI_MAP)
_SIDES = ("A", "B")
_BANDS = "AllTilesStats"


def validate_export(
    path: str | os.PathLike[str], dataset_type: str | None = None
) -> tuple[Fault, ...]:
    """Check training data: root files, ``map.txt``, every image, world file, label or block.

    Parameters
    ----------
    path
        The folder; nothing in it is changed. A CycleGAN folder is checked on both sides.
    dataset_type
        What a folder without Esri's root files holds, as for `prepare_data`.

    Returns
    -------
    All faults; none of level ``error`` means that the export can be used.

    Raises
    ------
    SourceNotFoundError
        There is no such folder.
    FormatError
        It is a file.
    """
    folder = Path(path)
    if not folder.exists():
        raise SourceNotFoundError(f"There is no chip folder {folder}; check the path.")
    if not folder.is_dir():
        raise FormatError(f"{folder} is a file; give the folder that holds images/ and labels/.")
    faults = Faults(folder)
    name = layout_of(folder, dataset_type)
    paired = all((folder / side).is_dir() for side in _SIDES) and not (folder / "images").is_dir()
    if paired and name in (None, "CycleGAN"):
        return _validate_pair(folder, dataset_type)
    if name is not None:
        _validate_layout(folder, name, faults)
        return faults.found
    _validate(folder, CHIPS_AS.get(dataset_type or "", dataset_type), faults)
    if dataset_type == "3DRCNet" and not _object(folder / ESRI_EMD, faults).get(_BANDS):
        faults.error(folder / ESRI_EMD, _BANDS, "is missing; it scales the many bands")
    return faults.found


def _validate_layout(folder: Path, name: str, faults: Faults) -> None:
    """Data that is no plain folder of chips: its root files, its layout and each of its parts."""
    below = sub_folders(folder) if name in ("WNet_cGAN", "ClimaX") else []
    further = [part for own in below for part in sub_folders(own)]
    # The classes of captions are no classes.
    exports = [] if name == "ImageCaptioning" else filter(is_export, [folder, *below, *further])
    for export in exports:
        _validate(export, None, faults)
    try:
        for path, check in LAYOUTS[name](folder).parts:
            try:
                check()
            except GeodlError as error:
                faults.error(path, "", str(error))
    except GeodlError as error:
        faults.error(file_of(str(error), folder), "", str(error))


def _validate_pair(folder: Path, dataset_type: str | None) -> tuple[Fault, ...]:
    faults = Faults(folder)
    sizes = []
    for side in _SIDES:
        own = Faults(folder)
        _validate(folder / side, dataset_type, own)
        faults.extend(own.found)
        stats = _object(folder / side / ESRI_STATS, Faults(folder))
        sizes.append([stats.get(key) for key in ("TileSizeX", "TileSizeY")])
    if sizes[0] != sizes[1]:
        faults.error(
            folder / "B" / ESRI_STATS,
            "TileSizeX",
            f"the chips of B have {sizes[1]} pixels, those of A {sizes[0]}; export both alike",
        )
    return faults.found


def _validate(path: Path, dataset_type: str | None, faults: Faults) -> None:
    missing = [name for name in _ROOTS if not (path / name).is_file()]
    for name in missing if dataset_type is None else ():
        faults.error(path / name, "", "is missing: the export is incomplete; export it again")
    emd, stats = _object(path / ESRI_EMD, faults), _object(path / ESRI_STATS, faults)
    mode = _mode(path, emd, stats, None if not missing else dataset_type, faults)
    if mode is None:
        return
    chip_format: ChipFormat = FORMATS[mode]()
    check_emd(path / ESRI_EMD, emd, stats, faults)
    check_stats(path / ESRI_STATS, stats, faults)
    chips = _chips(path, chip_format, faults)
    if not chips:
        return
    tiles = stats.get("NumTiles", stats.get("NumTilesAsDouble"))
    if isinstance(tiles, int | float) and tiles != len(chips):
        faults.warn(path / ESRI_STATS, "NumTiles", f"is {tiles:g}; there are {len(chips)} chips")
    try:
        folder = open_by_roots(path, path, dataset_type if missing else None, chips)
    except GeodlError as error:
        if not faults.errors:
            faults.error(path, "", str(error))
        return
    check_chips(folder, stats, faults)


def _object(path: Path, faults: Faults) -> dict[str, Any]:
    """A JSON object, empty where there is none that can be read."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except GeodlError as error:
        faults.error(path, "", str(error))
        return {}
    if not isinstance(value, dict):
        faults.error(path, "", f"holds {type(value).__name__}; expected a JSON object")
        return {}
    return value


def _mode(
    path: Path,
    emd: dict[str, Any],
    stats: dict[str, Any],
    given: str | None,
    faults: Faults,
) -> str | None:
    stated = [
        (path / name, str(value))
        for name, facts in ((ESRI_STATS, stats), (ESRI_EMD, emd))
        for value in [facts.get("MetaDataMode")]
        if value
    ]
    if given is None and not stated:
        if stats or emd:
            faults.error(path / ESRI_STATS, "MetaDataMode", "is missing")
        return None
    if len({mode for _, mode in stated}) > 1:
        (_, ours), (where, theirs) = stated
        faults.error(where, "MetaDataMode", f"is {theirs!r}, and {ESRI_STATS} says {ours!r}")
    mode = given or stated[0][1]
    if mode in FORMATS:
        return mode
    where = path if given else stated[0][0]
    faults.error(where, "MetaDataMode", f"is {mode!r}; known are {', '.join(sorted(FORMATS))}")
    return None


def _chips(path: Path, chip_format: ChipFormat, faults: Faults) -> tuple[ChipRef, ...]:
    """The chips whose images are there; what else ``map.txt`` names is a fault."""
    listed = path / ESRI_MAP
    tree = FileTree(path)
    try:
        if not listed.is_file():
            return chips_of(path, path, chip_format)
        text = listed.read_bytes().decode("utf-8-sig")
    except (GeodlError, OSError, UnicodeDecodeError) as error:
        faults.error(listed, "", str(error))
        return ()
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            tokens, paths = resolve_line(line, tree, f"{listed}, line {number}")
        except FormatError as error:
            faults.error(listed, f"line {number}", str(error))
            continue
        for token, there in zip(tokens, paths, strict=True):
            if there is None:
                faults.error(listed, f"line {number}", f"names {token!r}, which is not there")
        if paths[0] is not None:
            found.append((paths[0], tuple(p for p in paths[1:] if p is not None)))
    if not found:
        faults.error(listed, "", "names no chip that is there; export the chips again")
        return ()
    try:
        return chip_refs(found, tree, chip_format)
    except FormatError as error:
        faults.error(listed, "", str(error))
        return ()


# -- root files -------------------------------------------------------------------------------


def check_emd(path: Path, emd: dict[str, Any], stats: dict[str, Any], faults: Faults) -> None:
    """Classes, image space, band names and band statistics of the EMD."""
    _check_classes(path, emd.get("Classes"), ("Value", "ClassValue"), ("Name", "ClassName"), faults)
    space = emd.get("ImageSpaceUsed")
    if space is not None and space not in IMAGE_SPACES:
        faults.error(path, "ImageSpaceUsed", f"is {space!r}; known are {', '.join(IMAGE_SPACES)}")
    bands = stats.get("NumBands")
    properties = emd.get("InputRastersProps")
    names = properties.get("BandNames") if isinstance(properties, dict) else None
    if isinstance(names, list) and isinstance(bands, int) and len(names) != bands:
        # ArcGIS lists the bands of the source here, of which the chips may hold some.
        faults.warn(path, "InputRastersProps.BandNames", f"has {len(names)} names, {bands} bands")
    listed = emd.get("AllTilesStats")
    if isinstance(listed, list) and isinstance(bands, int) and len(listed) not in (0, bands):
        faults.error(path, "AllTilesStats", f"has {len(listed)} entries for {bands} bands")
    for key in ("AllTilesStats", "AllTilesStats2"):
        entries = emd.get(key)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            _check_band(path, f"{key}[{number}]", entry, faults)


def _check_band(path: Path, where: str, entry: Any, faults: Faults) -> None:
    if not isinstance(entry, dict):
        faults.error(path, where, "is no JSON object")
        return
    try:
        low, high, mean, std = (as_float(entry.get(k), k) for k in ("Min", "Max", "Mean", "StdDev"))
    except OptionError as error:
        faults.error(path, where, str(error))
        return
    if not low <= mean <= high:
        faults.error(path, where, f"Min {low:g}, Mean {mean:g} and Max {high:g} contradict")
    if std < 0:
        faults.error(path, where, f"StdDev is {std:g}; it is at least 0")


def _check_classes(
    path: Path, entries: Any, values: tuple[str, ...], names: tuple[str, ...], faults: Faults
) -> None:
    if entries is None:
        return
    if not isinstance(entries, list):
        faults.error(path, "Classes", "is no list")
        return
    seen: dict[str, set[Any]] = {"value": set(), "name": set()}
    for number, entry in enumerate(entries):
        where = f"Classes[{number}]"
        if not isinstance(entry, dict):
            faults.error(path, where, "is no JSON object")
            continue
        value = next((entry[key] for key in values if key in entry), None)
        name = next((entry[key] for key in names if key in entry), None)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and value is not None:
            faults.error(path, f"{where}.{values[0]}", f"is {value!r}; expected a whole number")
        if not isinstance(name, str) or not name.strip():
            faults.error(path, f"{where}.{names[0]}", f"is {name!r}; expected a name")
        for what, given in (("value", value), ("name", name)):
            if given is not None and str(given) in seen[what]:
                faults.error(path, where, f"has the {what} {given!r} of another class")
            seen[what].add(str(given))
        _check_colour(path, where, entry.get("Color"), faults)


def _check_colour(path: Path, where: str, colour: Any, faults: Faults) -> None:
    if colour is None:
        return
    good = isinstance(colour, list) and len(colour) == 3
    if not good or not all(isinstance(part, int) and -1 <= part <= 255 for part in colour):
        faults.error(path, f"{where}.Color", f"is {colour!r}; expected three of 0..255, or -1")


def check_stats(path: Path, stats: dict[str, Any], faults: Faults) -> None:
    """Counts and summaries of the statistics."""
    _check_classes(
        path, stats.get("Classes"), ("ClassValue", "Value"), ("ClassName", "Name"), faults
    )
    for key in ("NumBands", "TileSizeX", "TileSizeY"):
        if stats:
            try:
                as_int(stats.get(key), key, minimum=1)
            except OptionError as error:
                faults.error(path, key, str(error))
    for key in ("FeatureStats", "ClassPixelStats"):
        group = stats.get(key)
        if isinstance(group, dict):
            _check_counts(path, key, group, faults)


def _check_counts(path: Path, where: str, value: Any, faults: Faults) -> None:
    """Counts below 0, and summaries whose mean is not their sum over their count."""
    if isinstance(value, dict):
        keys = {"Sum", "Count", "Mean"}
        if keys <= value.keys() and all(isinstance(value[k], int | float) for k in keys):
            mean = value["Sum"] / value["Count"] if value["Count"] else 0.0
            if abs(mean - value["Mean"]) > 1e-6 * max(1.0, abs(mean)):
                faults.error(path, where, f"Mean is {value['Mean']:g}; Sum / Count is {mean:g}")
        for key, part in value.items():
            _check_counts(path, f"{where}.{key}", part, faults)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_counts(path, f"{where}[{number}]", part, faults)
    elif isinstance(value, int | float) and value < 0:
        # Totals beyond 32 bits wrap around in exports of older programs.
        faults.warn(path, where, f"is {value:g}; a count below 0 is taken for missing")
