"""Where a tool's product goes, and what may stand there already."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geodl.base.errors import (
    FormatError,
    OptionError,
    OutputError,
    OutputExistsError,
    SourceNotFoundError,
)
from geodl.base.files import read_json
from geodl.base.options import as_path, check_choice
from geodl.base.places import is_remote, place, reached
from geodl.io.manifest import manifest_path


@dataclass(frozen=True, slots=True)
class Product:
    """A path for the result of one run.

    Parameters
    ----------
    path
        The finished product, on this machine or in an object store. Beside it lie the manifest
        and, while unfinished, ``<path>.run``.
    overwrite
        Whether a finished product may be replaced.
    catalog
        Where the finished product is published, or None.
    finished
        An earlier call has made it, and it is wanted as it is.
    """

    path: Path
    overwrite: bool
    catalog: Any = None
    finished: bool = False

    @property
    def run_folder(self) -> Path:
        return self.path.with_name(self.path.name + ".run")

    @classmethod
    def at(
        cls,
        output_name: str | os.PathLike[str] | None,
        *,
        suffixes: tuple[str, ...],
        default_stem: str,
        gis: Any,
        overwrite: bool,
        made_as: Mapping[str, Any] | None = None,
        kept: bool = False,
    ) -> Product:
        """Resolve ``output_name``.

        Parameters
        ----------
        output_name
            A path or URL (``s3://bucket/name.tif``) whose suffix picks the format, a bare name in
            the catalog or else the working folder, or None.
        suffixes
            The formats on offer; the first is the default.
        default_stem
            Name for None.
        gis
            A :class:`geodl.Catalog` or None.
        made_as
            What the manifest of this very product holds, ``fingerprint`` among it: by that a run
            that was ended between its product and its manifest goes on.
        kept
            Whether a finished product that was made so is no error.

        Raises
        ------
        OutputExistsError
            A finished product is there and ``overwrite`` is False.
        OutputError
            Its folder is missing or cannot be written.
        OptionError
            A suffix that no writer of this tool has.
        """
        check_catalog(gis, "output_name")
        if output_name is not None:
            as_path(output_name, "output_name")
        named = default_stem if output_name is None else os.path.expanduser(str(output_name))
        path = place(named)
        if not named.strip() or path.name in ("", ".", ".."):
            raise OptionError(f"output_name={output_name!r} names no file")
        published = gis is not None and (output_name is None or is_bare(named))
        if not path.suffix and not published and os.path.isdir(named):
            raise OptionError(
                f"output_name={str(output_name)!r} is a folder; name a file in it, ending in "
                f"{suffixes[0]}"
            )
        if not path.suffix or output_name is None:
            path = path.with_name(path.name + suffixes[0])
        check_choice(path.suffix.lower(), suffixes, f"output_name {path.name}: the suffix")
        if not is_remote(path):
            path = Path(os.path.abspath(path))
        if published:
            path = gis.product_path(path.name)
        product = cls(path, overwrite, gis)
        return replace(product, finished=product._check(made_as or {}, kept=kept))

    def spare(self, inputs: Iterable[str]) -> None:
        """Refuse to replace what the product is made from.

        Parameters
        ----------
        inputs
            Paths and URLs.

        Raises
        ------
        OutputError
            The product's path is one of them.
        """
        if not self.overwrite or not self.path.exists():
            # Without overwrite what is there was refused already.
            return
        for name in inputs:
            if name == str(self.path) or _same_file(name, self.path):
                raise OutputError(
                    f"{self.path} is an input of this run, which overwrite=True would replace; "
                    "choose another output."
                )

    def publish(self) -> None:
        """Publish the finished product where the caller has named a catalog."""
        if self.catalog is not None:
            self.catalog.add(self.path, overwrite=True)

    def _check(self, made_as: Mapping[str, Any], *, kept: bool) -> bool:
        """Whether the product is there already and kept."""
        if is_remote(self.path):
            there = reached(self.path, self.path.exists)
        else:
            self._check_folder()
            there = self.path.exists()
        if not there or self.overwrite:
            return False
        begun = _told(self.run_folder / "run.json", "fingerprint") == made_as.get("fingerprint", "")
        manifest = manifest_path(self.path)
        if made_as and all(_told(manifest, name) == value for name, value in made_as.items()):
            if kept:
                return True
        elif begun:
            return False
        raise OutputExistsError(
            f"{self.path} exists already; pass overwrite=True to replace it, or another output."
        )

    def _check_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise OutputError(
                f"The folder {folder} of the output does not exist; make it, or choose another."
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"The folder {folder} cannot be written; choose one that you may write to."
            )


def _told(path: Path, name: str) -> Any:
    """A value of a JSON file that a run has written; None where there is none."""
    try:
        return read_json(path).get(name)
    except (SourceNotFoundError, FormatError):
        return None


def _same_file(name: str, path: Path) -> bool:
    try:
        return not is_remote(path) and os.path.samefile(name, path)
    except OSError:
        # One of them is not there, or no file of this machine.
        return False


def check_catalog(gis: Any, argument: str) -> None:
    """Refuse what is given as a catalog and is none; ``argument`` names the path instead."""
    if gis is not None and not hasattr(gis, "product_path"):
        raise OptionError(
            f"gis={gis!r}: give a catalog, gis=geodl.Catalog(folder), or leave it out and pass "
            f"{argument} as a path."
        )


def is_bare(name: str) -> bool:
    """Whether a name is one without a folder."""
    return not is_remote(name) and os.path.basename(name) == name
