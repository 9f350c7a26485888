"""Reports: what people look at during and after a training. Reads a run folder, knows nothing of networks.

`read_log` is what happened; `write_progress` draws it to run/progress.png, `format_table` is the table at the end of
a training, `write_report` the page run/report.html, `TensorBoardLog` hands records on to TensorBoard.
"""

from __future__ import annotations

from segmamba.evaluation.report.curves import write_progress
from segmamba.evaluation.report.log import RunLog, read_log, worst_first
from segmamba.evaluation.report.page import write_report
from segmamba.evaluation.report.table import format_table
from segmamba.evaluation.report.tensorboard import TensorBoardLog

__all__ = [
    "RunLog",
    "TensorBoardLog",
    "format_table",
    "read_log",
    "worst_first",
    "write_progress",
    "write_report",
]
