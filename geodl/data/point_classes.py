"""Which blocks and classes of point clouds train: what both types of them share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geodl.base.errors import DataError, DataWarning, OptionError
from geodl.base.options import as_int
from geodl.data.request import DataRequest

# The standard codes of LAS 1.4, point formats 6 to 10.
LAS_NAMES = {
    1: "Unclassified", 2: "Ground", 3: "Low vegetation", 4: "Medium vegetation",
    5: "High vegetation", 6: "Building", 7: "Low noise", 8: "Key point", 9: "Water", 10: "Rail",
    11: "Road surface", 13: "Wire guard", 14: "Wire conductor", 15: "Transmission tower",
    16: "Wire connector", 17: "Bridge deck", 18: "High noise",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CodeRules:
    """What becomes of class codes before a network sees them.

    Parameters
    ----------
    remap
        Code to its new value.
    interest
        New values that matter; empty: all.
    background
        What all others become; None: they stay.
    """

    remap: Mapping[int, int]
    interest: tuple[int, ...] = ()
    background: int | None = None

    def value(self, code: int) -> int:
        """The class value of a LAS code."""
        value = self.remap.get(code, code)
        if self.interest and self.background is not None and value not in self.interest:
            return self.background
        return value

    def wanted(self, codes: Sequence[int]) -> list[int]:
        """Codes whose new value matters."""
        return [c for c in codes if not self.interest or self.remap.get(c, c) in self.interest]


def check_sets_alike(train: Any, valid: Any) -> None:
    """Hold both sets to one scale and the same attributes; other classes only warn.

    Raises
    ------
    DataError
        Names the folder that differs.
    """
    ours, theirs = train.facts, valid.facts
    if ours.scale != theirs.scale or ours.tile_size != theirs.tile_size:
        raise DataError(
            f"Blocks of {valid.folder} have the size {theirs.tile_size:g}, those of "
            f"{train.folder} {ours.tile_size:g}; export both alike."
        )
    if set(ours.limits) != set(theirs.limits):
        raise DataError(
            f"{valid.folder} has the attributes {', '.join(theirs.limits) or 'none'}, "
            f"{train.folder} {', '.join(ours.limits) or 'none'}; export both alike."
        )
    if ours.codes != theirs.codes:
        warnings.warn(
            f"The classes of {train.folder} are {', '.join(map(str, ours.codes))}, those of "
            f"{valid.folder} {', '.join(map(str, theirs.codes))}; all of them are used.",
            DataWarning,
            stacklevel=5,
        )


def codes_of(sets: Sequence[Any]) -> tuple[int, ...]:
    """Class codes of all sets, ascending."""
    return tuple(sorted({code for one in sets for code in one.facts.codes}))


def as_codes(given: Any, name: str) -> tuple[int, ...]:
    """Whole numbers from a list of them. Raises OptionError."""
    if given is None:
        return ()
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, (list, tuple, set, range)):
        raise OptionError(f"{name}={given!r} is no list of class codes.")
    return tuple(as_int(code, name, minimum=0) for code in given)


def as_remap(given: Any, known: Sequence[int]) -> dict[int, int]:
    """``remap_classes`` as whole numbers. Raises OptionError on a code that the data has not."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"remap_classes={given!r} is no dict of code to code.")
    remap = {
        as_int(code, "remap_classes"): as_int(new, "remap_classes", minimum=0)
        for code, new in given.items()
    }
    strange = sorted(remap.keys() - set(known))
    if strange:
        raise OptionError(
            f"remap_classes names the code {strange[0]}, which the data does not have "
            f"({', '.join(map(str, known))})."
        )
    return remap


def code_rules(request: DataRequest, known: Sequence[int]) -> CodeRules:
    """The three class options of point clouds.

    Raises
    ------
    OptionError
        Codes that the data does not have, or a background without classes of interest.
    """
    options = request.options
    remap = as_remap(options.get("remap_classes"), known)
    interest = as_codes(options.get("classes_of_interest"), "classes_of_interest")
    after = sorted({remap.get(code, code) for code in known})
    strange = sorted(set(interest) - set(after))
    if strange:
        raise OptionError(
            f"classes_of_interest names {strange[0]}; after remap_classes the data has "
            f"{', '.join(map(str, after))}."
        )
    given = options.get("background_classcode")
    if given is not None and not interest:
        raise OptionError("background_classcode needs classes_of_interest, all other classes of "
                          "which become background.")  # fmt: skip
    background = None if given is None else as_int(given, "background_classcode", minimum=0)
    return CodeRules(remap=remap, interest=interest, background=background)


def kept_blocks(
    blocks: Any, rules: CodeRules, known: Sequence[int], request: DataRequest
) -> list[int]:
    """Positions of the blocks that are large enough and hold a class that matters.

    Raises
    ------
    OptionError
        ``min_points`` below 1.
    DataError
        None is left.
    """
    given = request.options.get("min_points")
    least = 1 if given is None else as_int(given, "min_points", minimum=1)
    wanted = rules.wanted(known)
    counts = blocks.counts()
    kept = [
        i
        for i in range(len(blocks))
        if counts[i] >= least and (not rules.interest or blocks.has_codes(i, wanted))
    ]
    if not kept:
        raise DataError(
            f"No block of {blocks.folder} has {least} points or more"
            + (f" and one of the classes {list(rules.interest)}" if rules.interest else "")
            + ". Lower min_points, or export more."
        )
    return kept
