"""Features and tables in Esri's JSON, as raster functions hand them to ArcGIS Pro."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import shapely

from geodl.core.classes import ClassTable


def fields_json(fields: Mapping[str, str]) -> str:
    """``{"fields": [...]}`` of an id, these fields and a shape.

    Parameters
    ----------
    fields
        Name to type: ``String``, ``Double``, ``Integer``, ``Blob``.
    """
    return json.dumps({"fields": _fields({**fields, "Shape": "Geometry"})})


def _fields(types: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "type": f"esriFieldType{kind}", "alias": name}
        for name, kind in {"OID": "OID", **types}.items()
    ]


def feature_set(
    fields: Mapping[str, str], rows: Sequence[Mapping[str, Any]], shapes: Iterable[Any]
) -> str:
    """A feature set of polygons.

    Parameters
    ----------
    fields
        As :func:`fields_json` takes them.
    rows
        Values by field; ids from 1 are added.
    shapes
        Polygons or MultiPolygons, one per row, in pixels: x right, y down.
    """
    features = [
        {"attributes": {"OID": k, **row}, "geometry": {"rings": _rings(shape)}}
        for k, (row, shape) in enumerate(zip(rows, shapes, strict=True), start=1)
    ]
    return json.dumps(
        {
            "displayFieldName": "",
            "fieldAliases": {name: name for name in ("OID", *fields)},
            "geometryType": "esriGeometryPolygon",
            "fields": _fields(fields),
            "features": features,
        },
        allow_nan=False,
    )


def _rings(shape: Any) -> list[list[list[float]]]:
    """Closed rings; with y downwards outer ones go clockwise on the map, as Esri has them."""
    found = []
    for part in shapely.get_parts(shape):
        turned = shapely.orient_polygons(part)
        for ring in (turned.exterior, *turned.interiors):
            found.append(shapely.get_coordinates(ring).tolist())
    return found


def attribute_table(classes: ClassTable, *, background: bool) -> str:
    """The attribute table of a class raster: value, name and colour of each class.

    Parameters
    ----------
    background
        Whether 0 occurs.
    """
    rows: list[tuple[int, str, Sequence[int]]] = [(0, "Background", (0, 0, 0))] * background
    rows += [(entry.value, entry.name, entry.color) for entry in classes]
    types = {"Value": "Integer", "Class": "String"} | dict.fromkeys(
        ("Red", "Green", "Blue"), "Integer"
    )
    features = [
        {
            "attributes": {
                "OID": k, "Value": value, "Class": name,
                "Red": color[0], "Green": color[1], "Blue": color[2],
            }
        }
        for k, (value, name, color) in enumerate(rows, start=1)
    ]  # fmt: skip
    return json.dumps(
        {
            "displayFieldName": "",
            "fieldAliases": {name: name for name in ("OID", *types)},
            "fields": _fields(types),
            "features": features,
        }
    )
