"""The command that computes vectors of images and texts."""

from __future__ import annotations

import argparse
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.options import Pairs, add_options, given
from geodl.cli.work import add_client, client_of


def add_embed(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    from geodl.tools.embeddings import Embeddings

    own = add_options(parser, Embeddings)
    names = add_options(
        parser, Embeddings.get, positional=("text_or_list",), without=("return_embeddings",)
    )
    parser.add_argument("--working-dir", metavar="FOLDER", help="where the file is written")
    parser.add_argument(
        "--options",
        nargs="+",
        action=Pairs,
        metavar="NAME=VALUE",
        help="further keywords of Embeddings.get, chip_size=128 for example",
    )
    add_client(parser)

    def run(options: argparse.Namespace) -> dict[str, Any]:
        vectors = Embeddings(working_dir=options.working_dir, **given(options, own))
        more = {**(options.options or {}), **client_of(options)}
        return {"path": str(vectors.get(**given(options, names), **more))}

    return run, lambda value: f"embeddings: {value['path']}"
