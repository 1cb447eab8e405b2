"""Category names and an attribute table beside a class raster, as GDAL and QGIS read them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from geodl.base.files import write_atomic
from geodl.core.classes import ClassTable

# Category names are a list from 0; beyond this the attribute table alone tells the names.
_LONGEST_LIST = 4096
# GDAL's numbers for the type and the usage of a column.
_INTEGER, _TEXT = 0, 2
_MIN_MAX, _NAME, _RED, _GREEN, _BLUE = 5, 2, 6, 7, 8


def write_categories(path: Path, classes: ClassTable, *, nodata: int) -> None:
    """Write ``<path>.aux.xml`` with the names and colours of a class raster's first band.

    Parameters
    ----------
    path
        The raster.
    classes
        Value 0 is written as ``background``.
    nodata
        Is no class and gets no name.
    """
    rows = [(0, "background", (0, 0, 0)), *((e.value, e.name, e.color) for e in classes)]
    rows = [row for row in rows if row[0] != nodata]
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    _category_names(band, rows)
    _attribute_table(band, rows)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    write_atomic(path.with_name(f"{path.name}.aux.xml"), text + "\n")


def _category_names(
    band: ElementTree.Element, rows: list[tuple[int, str, tuple[int, int, int]]]
) -> None:
    by_value = {value: name for value, name, _ in rows}
    if min(by_value) < 0 or max(by_value) >= _LONGEST_LIST:
        return
    names = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(by_value) + 1):
        ElementTree.SubElement(names, "Category").text = by_value.get(value, "")


def _attribute_table(
    band: ElementTree.Element, rows: list[tuple[int, str, tuple[int, int, int]]]
) -> None:
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    columns = (
        ("Value", _INTEGER, _MIN_MAX),
        ("Class", _TEXT, _NAME),
        ("Red", _INTEGER, _RED),
        ("Green", _INTEGER, _GREEN),
        ("Blue", _INTEGER, _BLUE),
    )
    for index, (name, kind, usage) in enumerate(columns):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        ElementTree.SubElement(field, "Name").text = name
        ElementTree.SubElement(field, "Type").text = str(kind)
        ElementTree.SubElement(field, "Usage").text = str(usage)
    for index, (value, name, color) in enumerate(rows):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for cell in (value, name, *color):
            ElementTree.SubElement(row, "F").text = str(cell)
