"""Corrected cases: written into a shared folder, examined, and made a data set to train on. The files: FORMAT.md.

What reads images is imported when it is first used, so that asking how a folder stands costs little.
"""

from __future__ import annotations

from importlib import import_module

__all__ = [
    "CaseRecord",
    "Intake",
    "Preview",
    "Provenance",
    "format_intake",
    "ingest",
    "preview_submission",
    "proposal_facts",
    "read_record",
    "write_case",
]
_LATER = {
    **dict.fromkeys(("CaseRecord", "read_record"), "record"),
    **dict.fromkeys(("Provenance", "proposal_facts", "write_case"), "write"),
    **dict.fromkeys(("Intake", "format_intake", "ingest"), "intake"),
    **dict.fromkeys(("Preview", "preview_submission"), "preview"),
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
