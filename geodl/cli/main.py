"""The entry of the ``geodl`` command: parsing, exit status, errors and warnings for people."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TextIO

from geodl.base.errors import GeodlError, GeodlWarning, OptionError, UnknownOptionError


class Command(NamedTuple):
    """A subcommand: its summary, and ``module:function`` that adds its options.

    The function gets the parser and returns what runs: a callable of the parsed arguments that
    returns a JSON value, and a callable that words it for people.
    """

    summary: str
    target: str


Run = Callable[[argparse.Namespace], Any]
Word = Callable[[Any], str]

COMMANDS = {
    ("info",): Command("what a raster, chip folder, model or layer is", "look:add_info"),
    ("doctor",): Command("whether this machine has what is needed", "doctor:add_doctor"),
    ("weights", "fetch"): Command("download pretrained weights", "work:add_weights_fetch"),
    ("chips", "export"): Command("cut training chips from a raster", "work:add_chips_export"),
    ("chips", "info"): Command("what a chip folder holds", "look:add_chips_info"),
    ("chips", "points"): Command("cut a point cloud into training blocks", "points:add_blocks"),
    ("chips", "validate"): Command("check a chip folder file by file", "chips:add_validate"),
    ("train",): Command("train a model on a chip folder", "work:add_train"),
    ("detect",): Command("find objects in a raster", "work:add_detect"),
    ("detect3d",): Command("find objects in a point cloud", "points:add_boxes"),
    ("accuracy",): Command("judge detections against the truth", "objects:add_accuracy"),
    ("suppress",): Command("drop features that overlap better ones", "objects:add_suppress"),
    ("video",): Command("find and follow objects in a video", "objects:add_video"),
    ("classify",): Command("classify every pixel of a raster", "work:add_classify"),
    ("label",): Command("label features by the imagery around them", "models:add_label"),
    ("change",): Command("find what changed between two rasters", "work:add_change"),
    ("polygons",): Command("polygons of a class raster", "shapes:add_polygons"),
    ("lines",): Command("centre lines of a class raster", "shapes:add_lines"),
    ("regularize",): Command("straight outlines of buildings", "shapes:add_regularize"),
    ("confusion",): Command("compare a class raster with the truth", "shapes:add_confusion"),
    ("embed",): Command("vectors of images or texts", "embeddings:add_embed"),
    ("points",): Command("classify the points of a cloud", "points:add_points"),
    ("model", "info"): Command("what a model package holds", "look:add_model_info"),
    ("model", "verify"): Command("check a package part by part", "models:add_verify"),
    ("model", "export"): Command("write a package with ONNX or TorchScript", "models:add_export"),
    ("model", "train"): Command("train as train_model() does", "models:add_train_model"),
    ("model", "list"): Command("models of a catalog for the tools", "models:add_model_list"),
    ("model", "install"): Command("put a package into a catalog", "models:add_install"),
    ("model", "uninstall"): Command("take a model off that list", "models:add_uninstall"),
    ("catalog", "list"): Command("what a catalog holds", "models:add_catalog_list"),
    ("catalog", "add"): Command("publish a product or model", "models:add_catalog_add"),
    ("catalog", "get"): Command("an item of a catalog", "models:add_catalog_get"),
    ("catalog", "remove"): Command("remove an item with its files", "models:add_catalog_remove"),
    ("catalog", "check"): Command("hold a catalog to STAC", "models:add_catalog_check"),
    ("cluster", "info"): Command("what a cluster has, and what it lacks", "cluster:add_info"),
    ("cluster", "start"): Command("start a cluster until Ctrl-C", "cluster:add_start"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        Without the program's name; None takes the process's own.

    Returns
    -------
    Exit status: 0, or 1 for a failed run. Wrong use raises ``SystemExit(2)`` as argparse does.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    options = parser.parse_args(words)
    if not hasattr(options, "run"):
        options.incomplete.print_help(sys.stderr)
        return 2
    debug = getattr(options, "debug", False)
    if arguments is None and not debug:
        # Faults of ours and of libraries: two lines and status 1, like any other error.
        sys.excepthook = _report_fault
    try:
        with _plain_warnings(debug):
            return _run(options)
    except (OptionError, UnknownOptionError) as error:
        return _failed(error, 2, debug)
    except (GeodlError, OSError) as error:
        return _failed(error, 1, debug)
    except KeyboardInterrupt:
        _say("interrupted; finished blocks are kept, the same command goes on from there")
        return 1


def _run(options: argparse.Namespace) -> int:
    if getattr(options, "json", False):
        # What the tools print on the way would break the one JSON value.
        with contextlib.redirect_stdout(sys.stderr):
            value = options.run(options)
        text = json.dumps(value, indent=2, ensure_ascii=False)
    else:
        value = options.run(options)
        text = options.word(value)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` for one, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(getattr(options, "status", 0))


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The whole tree of commands; options are imported only for the one that is called."""
    parser = argparse.ArgumentParser(
        prog="geodl", description="Train networks on imagery and run them wall to wall."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    parser.set_defaults(incomplete=parser)
    common = argparse.ArgumentParser(add_help=False)
    for place in (parser, common):
        place.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
        )
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON value"
    )
    called = tuple(word for word in words if not word.startswith("-"))
    groups: dict[str, Any] = {}
    top: Any = parser.add_subparsers(metavar="COMMAND", title="commands")
    for path, command in COMMANDS.items():
        branch = top if len(path) == 1 else _group(top, groups, path[0])
        leaf = branch.add_parser(path[-1], help=command.summary, parents=[common])
        leaf.description = command.summary[:1].upper() + command.summary[1:] + "."
        if called[: len(path)] == path:
            module, _, function = command.target.partition(":")
            add = getattr(importlib.import_module(f"geodl.cli.{module}"), function)
            run, word = add(leaf)
            leaf.set_defaults(run=run, word=word)
    return parser


def _group(top: Any, groups: dict[str, Any], name: str) -> Any:
    if name not in groups:
        leaves = " | ".join(path[1] for path in COMMANDS if path[0] == name and len(path) > 1)
        parser = top.add_parser(name, help=leaves)
        parser.set_defaults(incomplete=parser)
        groups[name] = parser.add_subparsers(metavar="COMMAND", title="commands")
    return groups[name]


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"geodl {version('geodl')}\n")
        parser.exit(0)


def _say(text: str) -> None:
    """One message on at most two lines of stderr."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if len(lines) > 2:
        lines = [lines[0], " ".join(lines[1:])]
    sys.stderr.write("geodl: " + "\n".join(lines) + "\n")


def _failed(error: BaseException, status: int, debug: bool) -> int:
    if debug:
        raise error
    _say(str(error) or type(error).__name__)
    return status


def _report_fault(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _say(f"{kind.__name__}: {error}\nThis is a fault of geodl; --debug shows where it happened.")


@contextlib.contextmanager
def _plain_warnings(debug: bool) -> Iterator[None]:
    """Only our own warnings, each on one line; all of them with ``--debug``."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", GeodlWarning)
            warnings.showwarning = _show_warning
        yield


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    sys.stderr.write(f"geodl: warning: {' '.join(str(message).split())}\n")
