"""The curve of the site over its runs, in the section Models."""

from __future__ import annotations

from ..learning.course import coursePoints, courseText, judgedRuns, refusedPoints
from .curve import COURSE_HEIGHT, drawCourse


class CourseView:
    """watch: a SiteWatch."""

    def __init__(self, ui, watch):
        self._ui, self._watch = ui, watch

    def show(self) -> None:
        ui, judged = self._ui, judgedRuns(self._watch.runs)
        text = courseText(judged)
        if ui.courseText.toPlainText() != text:
            ui.courseText.setPlainText(text)
        for widget in (ui.courseLabel, ui.courseText):
            widget.setVisible(bool(text))
        if text and not ui.modelsSection.collapsed:
            ui.courseLabel.setMinimumHeight(COURSE_HEIGHT)
            width = ui.inUseLabel.width  # as wide, and laid out also where the course is shown for the first time
            ui.courseLabel.setPixmap(drawCourse(coursePoints(judged), width, refusedPoints(judged)))
            ui.courseLabel.setToolTip(text)
