"""Names of the classes of a raster, from the side files that GDAL and ArcGIS write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import pyogrio
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from pyogrio.errors import DataSourceError

# GDAL's numbers for what a column of an attribute table is for.
_NAME, _VALUES = ("2",), ("5", "0")
_VALUE_FIELDS = ("value", "classvalue", "class_value")
_NAME_FIELDS = ("class_name", "classname", "class", "name", "label")


def category_names(path: str) -> dict[int, str]:
    """Class value to name; empty where no readable side file of a local raster tells any.

    An attribute table (``.aux.xml`` or ``.vat.dbf``) goes before a list of category names.
    """
    raster = Path(path)
    found = _from_dbf(raster.with_name(f"{raster.name}.vat.dbf"))
    if found:
        return found
    try:
        root = parse(raster.with_name(f"{raster.name}.aux.xml"), forbid_dtd=True).getroot()
    except (OSError, ParseError, DefusedXmlException, ValueError):
        return {}
    band = root.find("PAMRasterBand")
    if band is None:
        return {}
    return _from_table(band.find("GDALRasterAttributeTable")) or _from_list(band)


def _from_list(band: Element) -> dict[int, str]:
    listed = enumerate(entry.text or "" for entry in band.iterfind("CategoryNames/Category"))
    return {value: name.strip() for value, name in listed if name.strip()}


def _from_table(table: Element | None) -> dict[int, str]:
    if table is None:
        return {}
    fields = [
        ((field.findtext("Name") or "").strip().lower(), (field.findtext("Usage") or "").strip())
        for field in table.iterfind("FieldDefn")
    ]
    value = _column(fields, _VALUE_FIELDS, _VALUES)
    name = _column(fields, _NAME_FIELDS, _NAME)
    if value is None or name is None:
        return {}
    rows = ([cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row"))
    return _named((row[value], row[name]) for row in rows if len(row) == len(fields))


def _column(
    fields: list[tuple[str, str]], names: tuple[str, ...], usages: tuple[str, ...]
) -> int | None:
    """Place of a column: by its usual name, else by what it is for."""
    for wanted in names:
        for place, (name, _) in enumerate(fields):
            if name == wanted:
                return place
    return next((place for place, (_, usage) in enumerate(fields) if usage in usages), None)


def _from_dbf(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    try:
        table = pyogrio.read_dataframe(path, read_geometry=False)
    except DataSourceError:
        return {}
    fields = [(str(name).lower(), "") for name in table.columns]
    value, name = _column(fields, _VALUE_FIELDS, ()), _column(fields, _NAME_FIELDS, ())
    if value is None or name is None:
        return {}
    return _named(zip(table.iloc[:, value], table.iloc[:, name], strict=True))


def _named(rows: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """Names that are unique and not empty; all others stay numbers."""
    found: dict[int, str] = {}
    for value, name in rows:
        try:
            number = int(float(value))
        except (TypeError, ValueError, OverflowError):
            continue
        text = "" if name is None else str(name).strip()
        if text and text not in found.values():
            found[number] = text
    return found
