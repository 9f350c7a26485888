"""How the page looks, on a screen and on paper."""

STYLE = """
:root { --ink: #22303c; --faint: #6b7c88; --line: #dfe5ea; --soft: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.5rem 4rem; max-width: 62rem; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header { border-bottom: 2px solid var(--ink); padding-bottom: .8rem; margin-bottom: 1.4rem; }
h1 { font-size: 2rem; line-height: 1.15; margin: .1rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 1rem 0 .3rem; }
p { margin: .15rem 0; }
.kind { text-transform: uppercase; letter-spacing: .12em; font-size: .72rem; color: var(--faint); }
.faint { color: var(--faint); font-size: .88rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tile { flex: 1 1 8.5rem; background: var(--soft); border-top: 4px solid var(--line); border-radius: 3px;
  padding: .6rem .9rem .7rem; }
.tile p { color: var(--faint); font-size: .8rem; overflow-wrap: anywhere; }
.tile strong { display: block; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
img { display: block; max-width: 100%; height: auto; }
figure { margin: 1rem 0 1.6rem; }
figure img { border-radius: 3px; }
figcaption { color: var(--faint); font-size: .85rem; margin-top: .3rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th { text-align: left; font-weight: 600; color: var(--faint); padding: .25rem .5rem; }
td { padding: .25rem .5rem; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
.scores td:not(:first-child), .scores th:not(:first-child) { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.scores thead tr:first-child th { text-align: center; }
.scores td span { display: block; height: 4px; margin-top: 2px; background: var(--line); border-radius: 2px;
  min-width: 3.2rem; }
.scores td i { display: block; height: 4px; border-radius: 2px; }
.mean td { background: var(--soft); font-weight: 600; }
.events td:not(:last-child) { white-space: nowrap; color: var(--faint); }
.pairs { columns: 2 20rem; column-gap: 2.5rem; list-style: none; margin: 0; padding: 0; font-size: .86rem; }
.pairs li { display: flex; gap: 1rem; border-top: 1px solid var(--line); padding: .22rem 0; }
.pairs span { flex: 1 1 50%; overflow-wrap: anywhere; min-width: 0; }
.pairs span:first-child { color: var(--faint); }
.pairs li, figure, .tile, .scores tr { break-inside: avoid; }
.hashes td:last-child { font: .74rem/1.7 ui-monospace, "DejaVu Sans Mono", monospace; }
@media print {
  @page { margin: 14mm; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2, h3, h2 + p { break-after: avoid; }
  figure img { max-height: 110mm; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
