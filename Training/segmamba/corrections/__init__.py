"""Corrected cases: written into a shared folder, examined, and made a data set to train on. The files: FORMAT.md."""

from __future__ import annotations

from segmamba.corrections.intake import Intake, format_intake, take_in
from segmamba.corrections.record import CaseRecord, read_record
from segmamba.corrections.write import Provenance, proposal_facts, write_case

__all__ = [
    "CaseRecord",
    "Intake",
    "Provenance",
    "format_intake",
    "proposal_facts",
    "read_record",
    "take_in",
    "write_case",
]
