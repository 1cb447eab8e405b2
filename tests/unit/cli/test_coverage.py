"""Every public tool has a command, and every parameter of it an option."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import geodl
from geodl import functions, learn
from geodl.cli.main import COMMANDS
from geodl.cli.options import NOT_HERE, parameter_help
from geodl.data.prepare import prepare_data
from geodl.models.base import TorchModel
from geodl.tools.embeddings import Embeddings
from geodl.tools.model_package import Model

TOOLS: dict[tuple[str, ...], list[Callable[..., Any]]] = {
    ("chips", "export"): [learn.export_training_data],
    ("chips", "points"): [learn.export_point_dataset],
    ("train",): [prepare_data, TorchModel.fit, TorchModel.save],
    ("model", "train"): [learn.train_model],
    ("model", "list"): [learn.list_models],
    ("model", "install"): [Model.install],
    ("model", "uninstall"): [Model.uninstall],
    ("detect",): [learn.detect_objects],
    ("classify",): [learn.classify_pixels],
    ("label",): [learn.classify_objects],
    ("change",): [learn.detect_change_using_deep_learning],
    ("accuracy",): [learn.compute_accuracy_for_object_detection],
    ("points",): [geodl.classify_points],
    ("detect3d",): [geodl.detect_objects_3d],
    ("suppress",): [functions.non_max_suppression],
    ("polygons",): [functions.polygonize],
    ("lines",): [functions.extract_lines],
    ("regularize",): [functions.regularize_buildings],
    ("confusion",): [functions.compute_confusion_matrix],
    ("embed",): [Embeddings, Embeddings.get],
}
# What is called otherwise on the command line, or would only choose what is returned in Python.
OTHERWISE = {"name_or_path": "output", "return_embeddings": None}
# Functions that give objects of Python, which no command could hand on.
NO_COMMAND = {
    "apply_model", "connect", "open_points", "open_raster", "extract_band", "estimate_batch_size"
}  # fmt: skip


def destinations(path: tuple[str, ...]) -> set[str]:
    module, _, function = COMMANDS[path].target.partition(":")
    parser = argparse.ArgumentParser()
    getattr(importlib.import_module(f"geodl.cli.{module}"), function)(parser)
    return {action.dest for action in parser._actions}


@pytest.mark.parametrize("path", sorted(TOOLS))
def test_every_parameter_is_an_option(path: tuple[str, ...]) -> None:
    there = destinations(path)
    for tool in TOOLS[path]:
        for name, parameter in inspect.signature(tool).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD or name in ("self", *NOT_HERE):
                continue
            wanted = OTHERWISE.get(name, name)
            assert wanted is None or wanted in there, f"geodl {' '.join(path)}: {name}"
        if "client" in inspect.signature(tool).parameters:
            assert "connect_to" in there


def test_every_public_function_has_a_command() -> None:
    with_command = {tool.__name__ for tools in TOOLS.values() for tool in tools}
    for module in (geodl, learn, functions):
        public = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
        assert public - with_command - NO_COMMAND == set()


@pytest.mark.parametrize("path", sorted(TOOLS))
def test_every_parameter_is_explained(path: tuple[str, ...]) -> None:
    for tool in TOOLS[path]:
        if inspect.isclass(tool):
            continue
        told = {name for name, text in parameter_help(tool).items() if text}
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        named = inspect.signature(tool).parameters.values()
        assert {p.name for p in named if p.kind not in kinds} - {"self"} <= told
