"""The root of a catalog: ``catalog.json``, which names every item, and the page made of it.

The items themselves are the truth; the root is made of them. Whoever changes an item writes the
root anew from what is listed, and looks again afterwards: of two that do so at the same time the
later one sees the other's item. On one machine a lock keeps them from repeating each other's work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pystac
from filelock import FileLock, Timeout

from geodl.base.errors import FormatError, OutputError
from geodl.base.files import read_json, write_atomic, write_json
from geodl.base.places import is_remote, make_folder, reached
from geodl.catalog.items import FACTS_KEY, KIND_KEY, check_item
from geodl.catalog.page import catalog_page

ROOT_NAME, PAGE_NAME = "catalog.json", "catalog.html"
_LOCK_NAME = ".catalog.lock"
_LOCK_WAIT_S = 120.0
# Others may write at the same time; each round sees what they wrote before it.
_MOST_ROUNDS = 100
_ITEM_TYPE = "application/geo+json"

Entry = dict[str, Any]


class Index:
    """The items of a catalog, by id.

    Parameters
    ----------
    root
        Folder of the catalog, on this machine or in an object store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # ---- items

    def item_path(self, item_id: str) -> Path:
        return self.root / item_id / f"{item_id}.json"

    def ids(self) -> list[str]:
        """Ids of the items that are there, in order."""
        if is_remote(self.root):
            return sorted(reached(self.root, self._remote_ids))
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if (p / f"{p.name}.json").is_file())

    def _remote_ids(self) -> list[str]:
        found: Any = self.root
        found.fs.invalidate_cache()
        return [p.parent.name for p in self.root.glob("*/*.json") if p.stem == p.parent.name]

    def item(self, item_id: str) -> dict[str, Any]:
        """The item as it is written.

        Raises
        ------
        SourceNotFoundError, FormatError
            Missing or damaged; names the file.
        """
        path = self.item_path(item_id)
        return check_item(read_json(path), str(path))

    # ---- the root

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time on this machine."""
        if is_remote(self.root):
            yield
            return
        make_folder(self.root)
        try:
            with FileLock(self.root / _LOCK_NAME, timeout=_LOCK_WAIT_S):
                yield
        except Timeout:
            raise OutputError(
                f"Another process has held {self.root / _LOCK_NAME} for {_LOCK_WAIT_S:.0f} s; wait "
                "for it, or remove the file if it is dead."
            ) from None

    def entries(self) -> dict[str, Entry]:
        """What the root says of each item; empty for a new catalog.

        Raises
        ------
        FormatError
            The root is damaged, or no root of a catalog.
        """
        path = self.root / ROOT_NAME
        if not reached(path, path.exists):
            return {}
        content = read_json(path)
        links = content.get("links") if isinstance(content, dict) else None
        if not isinstance(links, list) or content.get("type") != "Catalog":
            raise FormatError(f"{path} is no STAC catalog.")
        found = {}
        for link in links:
            if isinstance(link, dict) and link.get("rel") == "item":
                found[str(link.get("href", "")).rpartition("/")[2].removesuffix(".json")] = link
        return found

    def refresh(self, changed: Mapping[str, dict[str, Any]] | None = None) -> None:
        """Write root and page anew from the items that are there.

        Parameters
        ----------
        changed
            Items by id that were just written.
        """
        fresh = {item_id: entry_of(item) for item_id, item in (changed or {}).items()}
        for _ in range(_MOST_ROUNDS):
            ids, old = self.ids(), self._known()
            entries = {}
            for item_id in ids:
                entry = fresh.get(item_id) or old.get(item_id)
                entries[item_id] = entry or entry_of(self.item(item_id))
            if entries != old or changed is None:
                self._write(list(entries.values()))
                changed = {}
            elif self.ids() == ids:
                break
        write_atomic(
            self.root / PAGE_NAME, catalog_page(self.root.name, list(self._known().values()))
        )

    def _known(self) -> dict[str, Entry]:
        try:
            return self.entries()
        except FormatError:
            # It is written anew from the items.
            return {}

    def _write(self, entries: list[Entry]) -> None:
        catalog = pystac.Catalog(
            id=self.root.name or "catalog", description="Products and models of geodl."
        )
        content = catalog.to_dict(include_self_link=False)
        links = [{"rel": "root", "href": f"./{ROOT_NAME}", "type": "application/json"}]
        content["links"] = [*links, *entries]
        write_json(self.root / ROOT_NAME, content)


def entry_of(item: Mapping[str, Any]) -> Entry:
    """The root's link to an item, with what search and page need of it."""
    properties = item["properties"]
    item_id = str(item["id"])
    thumbnail = item.get("assets", {}).get("thumbnail", {}).get("href")
    entry: Entry = {
        "rel": "item",
        "href": f"./{item_id}/{item_id}.json",
        "type": _ITEM_TYPE,
        "title": properties.get("title", item_id),
        KIND_KEY: properties.get(KIND_KEY),
        FACTS_KEY: properties.get(FACTS_KEY, {}),
        "created": properties.get("created"),
        "bbox": item.get("bbox"),
    }
    if properties.get("description"):
        entry["description"] = properties["description"]
    if "geodl:installed" in properties:
        entry["geodl:installed"] = properties["geodl:installed"]
    main = item.get("assets", {}).get("data", {}).get("href")
    for key, href in (("thumbnail", thumbnail), ("data", main)):
        if isinstance(href, str):
            entry[f"geodl:{key}"] = f"./{item_id}/{href.removeprefix('./')}"
    return entry
