"""The catalog of products and models: a STAC tree of JSON files in a folder or object store."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pystac

from geodl.base.errors import (
    NotSupportedError,
    OptionError,
    OutputError,
    OutputExistsError,
    SourceNotFoundError,
)
from geodl.base.files import read_json, write_json
from geodl.base.options import check_choice, nearest
from geodl.base.places import is_remote, place, reached, remote_system, remove_tree
from geodl.catalog.index import PAGE_NAME, ROOT_NAME, Index, entry_of
from geodl.catalog.items import KINDS, Described, described, make_item
from geodl.catalog.search import as_bbox, fits
from geodl.catalog.thumbnails import thumbnail

_THUMBNAIL = "thumbnail.png"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Catalog:
    """Products and models in one place, as a plain tree of STAC items.

    Each item is a folder ``<root>/<id>/`` with its files, ``<id>.json`` and a picture;
    ``catalog.json`` names them all, and ``catalog.html`` shows them in a browser. Several processes
    may publish at the same time; none of their items is lost. Every function that has ``gis`` takes
    a catalog: products with a bare name, or none, are written into it and published.

    Parameters
    ----------
    root
        A folder, which is made when something is published, or a URL such as
        ``s3://bucket/catalog``.

    Raises
    ------
    OptionError, MissingPackageError
        A protocol that nothing is known of, or whose package is missing.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root) if isinstance(root, os.PathLike) else str(root)
        if not text.strip():
            raise OptionError("Catalog('') names no folder; give its path or URL.")
        remote = is_remote(text)
        self.root = place(text.rstrip("/")) if remote else Path(text).expanduser().absolute()
        self._index = Index(self.root)

    def __repr__(self) -> str:
        return f"Catalog({str(self.root)!r})"

    def __len__(self) -> int:
        return len(self._index.ids())

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalog, (str(self.root),)

    @property
    def page(self) -> Path:
        """``catalog.html``."""
        return self.root / PAGE_NAME

    # ---- publishing

    def add(
        self,
        path_or_object: Any,
        *,
        id: str | None = None,  # noqa: A002 - the word of STAC
        title: str | None = None,
        description: str = "",
        overwrite: bool = False,
    ) -> pystac.Item:
        """Publish a product or a model; its files are copied into the catalog.

        Parameters
        ----------
        path_or_object
            The path of a raster, features, points, a table, a folder of training chips, or a model
            (``.dlpk``, ``.emd``, the folder of ``save``); what a tool returned; or a trained model.
        id
            Of the item, unique in the catalog; None takes the file's name without its suffix.
        title, description
            For people.
        overwrite
            Replace an item of that id.

        Returns
        -------
        The item; ``item.assets["data"].href`` is the product or model in the catalog.

        Raises
        ------
        SourceNotFoundError, OptionError
            There is nothing, or nothing that a catalog holds.
        OutputExistsError
            An item of that id is there.
        BundleError
            A model package that is refused.
        OutputError
            The catalog cannot be written.
        """
        if hasattr(path_or_object, "write_bundle") and hasattr(path_or_object, "save"):
            return self._add_trained(path_or_object, id, title, description, overwrite)
        path = _path_of(path_or_object)
        found = described(path)
        item_id = check_id(id if id is not None else _id_from(path))
        inside = self._holds(path, item_id)
        folder = self.root / item_id
        if not inside and reached(folder, folder.exists) and not overwrite:
            raise OutputExistsError(
                f"The catalog {self.root} has an item {item_id!r} already; give another id, or "
                "overwrite=True."
            )
        picture = thumbnail(found)
        names = [*found.files, *([_THUMBNAIL] if picture is not None else [])]
        hrefs = {name: f"./{name}" for name in names}
        item = make_item(item_id, found, hrefs, title=title or item_id, description=description)
        content = _written(item)
        self._place(item_id, found, picture, content, inside=inside, overwrite=overwrite)
        with self._index.lock():
            self._index.refresh({item_id: content})
        return self.get(item_id)

    def _add_trained(
        self, model: Any, item_id: str | None, title: str | None, text: str, overwrite: bool
    ) -> pystac.Item:
        name = check_id(item_id or type(model).__name__)
        with tempfile.TemporaryDirectory(prefix="geodl-publish-") as folder:
            saved = model.save(Path(folder) / name)
            return self.add(saved, id=name, title=title, description=text, overwrite=overwrite)

    def _holds(self, path: Path, item_id: str) -> bool:
        """Whether a file lies in the item's own folder already: a tool wrote it there."""
        return not is_remote(self.root) and path.parent == self.root / item_id

    def _place(
        self,
        item_id: str,
        found: Described,
        picture: bytes | None,
        content: Mapping[str, Any],
        *,
        inside: bool,
        overwrite: bool,
    ) -> None:
        """Put an item's files where they belong, whole or not at all; its JSON comes last."""
        folder = self.root / item_id
        try:
            if is_remote(self.root):
                if overwrite:
                    remove_tree(folder)
                reached(folder, lambda: _upload(found, picture, folder))
            elif inside:
                if picture is not None:
                    (folder / _THUMBNAIL).write_bytes(picture)
            else:
                self._place_new(folder, found, picture, content, overwrite=overwrite)
                return
            write_json(self._index.item_path(item_id), dict(content))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error

    def _place_new(
        self,
        folder: Path,
        found: Described,
        picture: bytes | None,
        content: Mapping[str, Any],
        *,
        overwrite: bool,
    ) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{folder.name}.", suffix=".part"))
        try:
            part.chmod(0o755)
            _copy(found, picture, part)
            write_json(part / f"{folder.name}.json", dict(content))
            if overwrite and folder.exists():
                shutil.rmtree(folder)
            os.rename(part, folder)
        except FileExistsError:
            raise OutputExistsError(f"Another process has just published {folder}.") from None
        except OSError as error:
            if folder.exists() and not overwrite:
                raise OutputExistsError(f"Another process has just published {folder}.") from None
            raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def product_path(self, name: str) -> Path:
        """Where a product of that file name is written, to be published by :meth:`add` then.

        Raises
        ------
        NotSupportedError
            The catalog lies in an object store.
        """
        if is_remote(self.root):
            raise NotSupportedError(
                f"{self.root} is no folder of this machine: give output_name as a path here, and "
                "publish it with catalog.add(path)."
            )
        folder = self.root / check_id(Path(name).stem)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    # ---- finding

    def get(self, id: str) -> pystac.Item:  # noqa: A002 - the word of STAC
        """An item by its id, with the full locations of its assets.

        Raises
        ------
        SourceNotFoundError
            There is none; names the nearest.
        """
        path = self._index.item_path(check_id(id))
        if not reached(path, path.exists):
            known = self._index.ids()
            raise SourceNotFoundError(
                f"The catalog {self.root} has no item {id!r}.{nearest(id, known)}"
            )
        item = pystac.Item.from_dict(self._index.item(id))
        item.set_self_href(str(path))
        item.make_asset_hrefs_absolute()
        return item

    def search(
        self,
        text: str | None = None,
        bbox: Sequence[float] | None = None,
        kind: str | None = None,
    ) -> list[pystac.Item]:
        """Items that hold all that is asked for, by id.

        Parameters
        ----------
        text
            Occurs in id, title, description or facts; case plays no part.
        bbox
            West, south, east, north in degrees, which the item touches. A west beyond the east
            crosses the antimeridian.
        kind
            ``"raster"``, ``"features"``, ``"points"``, ``"table"``, ``"chips"``, ``"model"``.

        Raises
        ------
        OptionError
            An argument outside its domain.
        """
        if kind is not None:
            check_choice(kind, KINDS, "kind")
        area = None if bbox is None else as_bbox(bbox)
        entries = self._index.entries()
        found = []
        for item_id in self._index.ids():
            entry = entries.get(item_id)
            item = self.get(item_id) if entry is None else None
            if entry is None and item is not None:
                entry = entry_of(item.to_dict(include_self_link=False, transform_hrefs=False))
            if entry is not None and fits(item_id, entry, text, area, kind):
                found.append(item or self.get(item_id))
        return found

    # ---- removing

    def remove(self, id: str) -> None:  # noqa: A002 - the word of STAC
        """Remove an item with its files.

        Raises
        ------
        SourceNotFoundError
            There is none.
        """
        self.get(id)
        with self._index.lock():
            path = self._index.item_path(id)
            # The JSON goes first: without it the item is gone for everybody.
            path.unlink()
            remove_tree(self.root / id)
            self._index.refresh()

    def update(self, id: str, properties: Mapping[str, Any]) -> pystac.Item:  # noqa: A002
        """Set properties of an item; None removes one."""
        self.get(id)
        with self._index.lock():
            content = self._index.item(id)
            merged = {**content["properties"], **properties}
            kept = {k: v for k, v in merged.items() if v is not None or k == "datetime"}
            content["properties"] = kept
            write_json(self._index.item_path(id), content)
            self._index.refresh({id: content})
        return self.get(id)

    def validate(self) -> int:
        """Check root and items by pystac's validator against STAC itself.

        Returns
        -------
        How many items there are.

        Raises
        ------
        pystac.STACValidationError
            Something is no valid STAC; names it.
        """
        from pystac.validation import validate_dict

        validate_dict(read_json(self.root / ROOT_NAME), extensions=[])
        ids = self._index.ids()
        for item_id in ids:
            # Schemas of extensions lie in the network, which may not be there.
            validate_dict(self._index.item(item_id), extensions=[])
        return len(ids)


def check_id(item_id: str) -> str:
    """An id that is a plain folder name everywhere.

    Raises
    ------
    OptionError
        Something else.
    """
    text = str(item_id)
    if not _ID.fullmatch(text) or text.endswith("."):
        raise OptionError(
            f"id={text!r} cannot name an item; use letters, digits, dots, - and _, a letter or "
            "digit first."
        )
    return text


def _id_from(path: Path) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")
    return cleaned or "item"


def _path_of(thing: Any) -> Path:
    """Where something lies that was named, or that a tool returned."""
    named = getattr(thing, "attrs", None)
    path = named.get("path") if isinstance(named, dict) else None
    if path is None and hasattr(thing, "package_path"):
        path = thing.package_path
    if path is None and isinstance(thing, str | os.PathLike):
        path = thing
    if isinstance(path, list | tuple):
        raise OptionError(f"The result lies in {len(path)} files; add each by its path.")
    if path is None:
        raise OptionError(
            f"A {type(thing).__name__} says no path; give the path of a product or model, what a "
            "tool returned, or a trained model."
        )
    if is_remote(str(path)):
        raise NotSupportedError(f"{path} lies in an object store; download it, and add it then.")
    return Path(path).expanduser().absolute()


def _written(item: pystac.Item) -> dict[str, Any]:
    """The item as it lies in the catalog: links and assets relative to it."""
    content: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    root = {"href": f"../{ROOT_NAME}", "type": "application/json"}
    content["links"] = [{"rel": "root", **root}, {"rel": "parent", **root}]
    return content


def _copy(found: Described, picture: bytes | None, folder: Path) -> None:
    for name, path in found.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, target)
    if picture is not None:
        (folder / _THUMBNAIL).write_bytes(picture)


def _upload(found: Described, picture: bytes | None, folder: Path) -> None:
    system, target = remote_system(folder)
    for name, path in found.files.items():
        system.put(str(path), f"{target}/{name}", recursive=path.is_dir())
    if picture is not None:
        (folder / _THUMBNAIL).write_bytes(picture)
