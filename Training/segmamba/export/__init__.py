"""Export: a model package in the format of other software. The package itself stays what everything here uses."""

from __future__ import annotations

from segmamba.export.bundle import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
