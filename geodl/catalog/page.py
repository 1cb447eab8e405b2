"""``catalog.html``: what is in a catalog, with pictures; one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem; background: #f6f6f4; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; text-transform: capitalize; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
article { background: white; border: 1px solid #ddd; border-radius: 6px; padding: .8rem; }
article img { width: 100%; height: 10rem; object-fit: contain; background: #eee; }
article h3 { font-size: 1rem; margin: .5rem 0 .2rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .6rem; margin: 0;
  font-size: .8rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
input { font: inherit; padding: .3rem .5rem; width: 20rem; max-width: 100%; }
"""

_SCRIPT = """
document.getElementById("find").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const item of document.querySelectorAll("article"))
    item.hidden = !item.textContent.toLowerCase().includes(wanted);
});
"""
_ORDER = ("model", "raster", "features", "points", "table", "chips")


def catalog_page(name: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """The page of a catalog.

    Parameters
    ----------
    name
        Of the catalog.
    entries
        The links of its root.
    """
    title = escape(name or "catalog")
    groups: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in _ORDER}
    for entry in entries:
        groups.setdefault(str(entry.get("geodl:kind")), []).append(entry)
    parts = [
        f"<section><h2>{escape(kind)} ({len(group)})</h2><div class='items'>"
        + "".join(_article(entry) for entry in group)
        + "</div></section>"
        for kind, group in groups.items()
        if group
    ]
    body = "".join(parts) or "<p>Nothing has been published here yet.</p>"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}: {len(entries)} items</h1>"
        "<p><input id='find' placeholder='Find' aria-label='Find'></p>"
        f"{body}<script>{_SCRIPT}</script></body></html>\n"
    )


def _article(entry: Mapping[str, Any]) -> str:
    title = escape(str(entry.get("title", "")))
    thumbnail, data = entry.get("geodl:thumbnail"), entry.get("geodl:data")
    picture = f"<img alt='' loading='lazy' src='{_link(thumbnail)}'>" if thumbnail else ""
    facts = dict(entry.get("geodl:facts") or {})
    if entry.get("geodl:installed"):
        facts["installed"] = "yes"
    if entry.get("bbox"):
        facts["bounds"] = ", ".join(f"{side:.5f}" for side in entry["bbox"])
    facts["published"] = entry.get("created")
    rows = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(_shown(value))}</dd>"
        for key, value in facts.items()
        if value not in (None, "")
    )
    heading = f"<a href='{_link(data)}'>{title}</a>" if data else title
    text = f"<p>{escape(str(entry['description']))}</p>" if entry.get("description") else ""
    return f"<article>{picture}<h3>{heading}</h3>{text}<dl>{rows}</dl></article>"


def _link(href: Any) -> str:
    return escape(quote(str(href), safe="/:.~-_%"), quote=True)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
