"""The report as one HTML page that needs nothing but a browser: pictures inside, no scripts, everything escaped."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from segmamba.files.atomic import write_aside
from segmamba.followup.content import NOT_A_DEVICE, TITLE, Section, made_by
from segmamba.followup.follow import FollowUp

_STYLE = """
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 64rem; color: #22303c; background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 2rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .4rem; }
p { margin: .2rem 0; } header p { color: #6b7c88; }
header p.note { color: #22303c; font-weight: 600; }
img { display: block; max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th { text-align: left; color: #6b7c88; font-weight: 600; padding: .25rem .5rem; }
td { padding: .25rem .5rem; border-top: 1px solid #dfe5ea; vertical-align: top; }
section, tr, img { break-inside: avoid; }
@media print { @page { margin: 14mm; } body { padding: 0; max-width: none; font-size: 10pt; } }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_page(result: FollowUp, report: list[Section], path: Path) -> None:
    """Writes a report, aside and renamed.

    Args:
        result: the follow-up that is reported.
        report: its `sections`.
        path: of the file.
    """
    head = f"<header><h1>{TITLE}</h1><p>{escape(made_by(result))}</p>"
    head += f'<p class="note">{escape(NOT_A_DEVICE)}</p></header>'
    body = "\n".join([head, *map(_section, report)])
    write_aside(path, _PAGE.format(title=TITLE, style=_STYLE, body=body).encode())


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.table:
        head, *rows = section.table
        parts.append(
            "<table><thead><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr></thead><tbody>"
        )
        parts += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts.append("</tbody></table>")
    if section.picture:
        data = base64.b64encode(section.picture).decode()
        parts.append(f'<img alt="{escape(section.shows)}" src="data:image/png;base64,{data}">')
    return f"<section>{''.join(parts)}</section>"
