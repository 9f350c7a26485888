"""Sums of products and volumes over days, as a table and a plot chart of the scene."""

from __future__ import annotations

import slicer
import vtk

from ..i18n import _
from .measuring import regionTitle

_KIND = "SegMamba.FollowUp"
_COLORS = ((0.80, 0.25, 0.20), (0.13, 0.35, 0.60), (0.95, 0.65, 0.25), (0.45, 0.70, 0.85))


def updateChart(answer: dict):
    """The vtkMRMLPlotChartNode of the follow-up, made or brought up to date; one for the scene."""
    table = _node("vtkMRMLTableNode", _("Follow-up over time"))
    columns = {
        _("Day"): [date["day"] for date in answer["dates"]],
    }
    kinds = [burden["region"] for burden in answer["dates"][0]["burdens"]]
    for place, region in enumerate(kinds):
        burdens = [date["burdens"][place] for date in answer["dates"]]
        name = f", {regionTitle(region)}" if len(kinds) > 1 else ""
        columns[_("Sum of products, cm2") + name] = [_share(one["sum_of_products_mm2"], 100) for one in burdens]
        columns[_("Volume, mL") + name] = [one["volume_ml"] for one in burdens]
    before = table.StartModify()
    table.RemoveAllColumns()
    for title, values in columns.items():
        column = vtk.vtkDoubleArray()
        column.SetName(title)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.EndModify(before)
    chart = _node("vtkMRMLPlotChartNode", _("Follow-up"))
    chart.RemoveAllPlotSeriesNodeIDs()
    day, *rest = columns
    for title, color in zip(rest, _COLORS):
        series = _node("vtkMRMLPlotSeriesNode", title)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(day)
        series.SetYColumnName(title)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetColor(*color)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    for series in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode"):
        if series.GetAttribute(_KIND) not in (None, *rest):  # of a region that is no longer measured
            slicer.mrmlScene.RemoveNode(series)
    chart.SetXAxisTitle(_("days since baseline"))
    chart.SetYAxisTitle("")
    return chart


def showChart(chart) -> None:
    """In a layout that has a plot, where there are views."""
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None:
        layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
    logic = slicer.app.applicationLogic()
    selection = logic.GetSelectionNode()
    if selection is not None:
        selection.SetActivePlotChartID(chart.GetID())
        logic.PropagatePlotChartSelection()


def _share(value, divisor: float) -> float:
    return float("nan") if value is None else value / divisor


def _node(className: str, name: str):
    """That of the scene by its class and name; of several follow-ups the last is shown."""
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(_KIND) == name:
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    node.SetAttribute(_KIND, name)
    return node
