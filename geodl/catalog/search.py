"""Which items of a catalog hold what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_float
from geodl.catalog.index import Entry
from geodl.catalog.items import FACTS_KEY, KIND_KEY


def as_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """West, south, east, north in degrees, checked."""
    if isinstance(bbox, str) or len(bbox) != 4:
        raise OptionError(f"bbox={bbox!r}: give west, south, east, north in degrees.")
    west, south, east, north = (as_float(side, "bbox") for side in bbox)
    if south > north:
        raise OptionError(f"bbox={bbox!r}: its south lies beyond its north.")
    return west, south, east, north


def fits(
    item_id: str,
    entry: Entry,
    text: str | None,
    area: tuple[float, float, float, float] | None,
    kind: str | None,
) -> bool:
    """Whether an entry of the index holds all that is asked for; None asks for nothing."""
    if kind is not None and entry.get(KIND_KEY) != kind:
        return False
    if text is not None:
        facts = entry.get(FACTS_KEY) or {}
        parts = [item_id, entry.get("title"), entry.get("description"), *facts.values()]
        if not any(text.casefold() in str(part).casefold() for part in parts):
            return False
    return area is None or _touches(entry.get("bbox"), area)


def _touches(box: Any, area: tuple[float, float, float, float]) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    return box[1] <= area[3] and box[3] >= area[1] and _spans_meet(box[0], box[2], area[0], area[2])


def _spans_meet(west: float, east: float, other_west: float, other_east: float) -> bool:
    """Whether two ranges of longitude meet; a west beyond the east goes on around the globe."""
    ours = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    theirs = [(other_west, other_east)]
    if other_west > other_east:
        theirs = [(other_west, 180.0), (-180.0, other_east)]
    return any(a <= d and c <= b for a, b in ours for c, d in theirs)
