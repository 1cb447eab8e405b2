"""What may stand in for weights in a model package, by the suffix of its file."""

from __future__ import annotations

from geodl.base.registry import Registry

PAYLOADS = Registry(
    "model file",
    {
        ".onnx": "geodl.models.onnx_model:open_network",
    },
    group="geodl.payloads",
)
"""A function of a ``Bundle`` that gives a network in eval mode and its task. Weights of a class
of ``MODELS``, safetensors, have no row: that class builds their network."""
