"""Scores for people: tables for a terminal, and a CSV of every case, from what `evaluate` and `compare` return."""

from __future__ import annotations

import csv
import io

# metric -> short name, decimals
_METRICS = {
    "dice": ("Dice", 3),
    "hd95": ("HD95", 2),
    "nsd": ("NSD", 3),
    "lesion_dice": ("lesion Dice", 3),
    "lesion_hd95": ("lesion HD95", 2),
    "lesions": ("lesions", 1),
    "false_positives": ("false positives", 1),
}
_WHOLE = {"dice": "Dice", "hd95": "HD95", "nsd": "NSD"}
_BY_LESION = {"lesion_dice": "Dice", "lesion_hd95": "HD95", "false_positives": "FP"}


def format_table(result: dict) -> str:
    """What `evaluate_folders` returned -> tables: cases over the whole image, cases by lesion, means and intervals."""
    parts = [["Whole image (HD95 in mm)", *_cases(result, _WHOLE)]]
    if "lesion_dice" in result["mean"]:
        used = result["lesion_parameters"]
        parameters = f"dilation {used['dilation_voxels']} voxels, lesions up to {used['smallest_mm3']:g} mm3 not scored"
        title = f"Lesion by lesion (BraTS 2023, adult glioma: {parameters}; FP: false positives)"
        parts.append([title, *_cases(result, _BY_LESION)])
    parts.append(["Mean, and its 95 % interval (bootstrap over cases)", *_means(result)])
    return "\n\n".join("\n".join(part) for part in [*parts, _footer(result, result["without_truth"])])


def format_comparison(result: dict) -> str:
    """What `compare_folders` returned -> a table of differences, and the cases in which B loses most."""
    rows = [["", "", "A", "B", "B - A", "95 % interval", "p", "Wilcoxon", "better", "same", "worse"]]
    for metric, regions in result["comparison"].items():
        for region, row in regions.items():
            rows.append([
                *(_METRICS[metric][0], region, _number(metric, row["a"]), _number(metric, row["b"])),
                *(_number(metric, row["difference"], "+"), _interval(metric, row["ci95"], "+")),
                *(f"{row['p']:.4f}", f"{row['wilcoxon_p']:.4f}"),
                *(str(row[count]) for count in ("better", "same", "worse")),
            ])  # fmt: skip
    exact = next(iter(result["comparison"]["dice"].values()))["p_exact"]
    lines = [
        f"A: {result['a']['predictions']}",
        f"B: {result['b']['predictions']}",
        "",
        *_grid(rows, left=2),
        "",
        f"p: sign-flip test, {'exact' if exact else 'sampled'}, two-sided; not corrected for the number of rows",
        "better, same, worse: cases in which B is; interval: bootstrap over cases",
    ]
    worst = [
        f"  {region}: " + "; ".join(f"{w['case']} {w['a']:.3f} -> {w['b']:.3f}" for w in row["worst"])
        for region, row in result["comparison"]["dice"].items()
        if row["worst"]
    ]
    if worst:
        lines += ["", "Largest losses of Dice, A -> B", *worst]
    without = [*result["a"]["without_truth"], *result["b"]["without_truth"]]
    return "\n".join([*lines, "", *_footer(result, list(dict.fromkeys(without)))])


def format_csv(result: dict) -> str:
    """What `evaluate_folders` returned -> one line a case: case, dice_WT, dice_TC, ..; numbers in full."""
    first = next(iter(result["cases"].values()))
    columns = [(metric, region) for metric, regions in first.items() for region in regions]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *(f"{metric}_{region}" for metric, region in columns)])
    for case, scores in result["cases"].items():
        writer.writerow([_no_formula(case), *(scores[metric][region] for metric, region in columns)])
    return text.getvalue()


def _no_formula(text: str) -> str:
    """A cell that a spreadsheet takes for text, whatever it begins with."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _cases(result: dict, names: dict[str, str]) -> list[str]:
    columns = [(m, region) for m in names if m in result["mean"] for region in result["mean"][m]]
    rows = [["case", *(f"{names[m]} {region}" for m, region in columns)]]
    for case, scores in {**result["cases"], "mean": result["mean"]}.items():
        rows.append([case, *(_number(m, scores[m][region]) for m, region in columns)])
    return _grid(rows)


def _means(result: dict) -> list[str]:
    rows = [["", *result["mean"]["dice"]]]
    for metric, regions in result["mean"].items():
        intervals = result["ci95"][metric] if result["ci95"] else {}
        cells = [f"{_number(metric, v)} {_interval(metric, intervals.get(region))}" for region, v in regions.items()]
        rows.append([_METRICS[metric][0], *cells])
    return _grid(rows)


def _footer(result: dict, without_truth: list[str]) -> list[str]:
    scoring = {
        "brats2023": "BraTS 2023 (both masks empty: Dice 1, HD95 0; one: Dice 0, HD95 374)",
        "paper": "the authors' script (pooled HD95; one or both masks empty: Dice 0, HD95 50)",
    }[result["scoring"]]
    lines = [f"cases: {result['n']}; labels of the truths: {result['convention']}", f"scored as {scoring}"]
    if "nsd_tolerance_mm" in result:
        lines[-1] += f"; NSD within {result['nsd_tolerance_mm']:g} mm"
    lines += [f"note: {note}" for note in result["notes"]]
    if without_truth:
        more = f" and {len(without_truth) - 10} more" if len(without_truth) > 10 else ""
        lines.append(f"not scored, as there is no truth: {', '.join(without_truth[:10])}{more}")
    return lines


def _number(metric: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.{_METRICS[metric][1]}f}"


def _interval(metric: str, ends: list[float] | None, sign: str = "") -> str:
    return f"[{', '.join(_number(metric, end, sign) for end in ends)}]" if ends else ""


def _grid(rows: list[list[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell; the first `left` of them flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(f"{cell:{'<' if k < left else '>'}{widths[k]}}" for k, cell in enumerate(row)) for row in rows)
    return [line.rstrip() for line in lines]
