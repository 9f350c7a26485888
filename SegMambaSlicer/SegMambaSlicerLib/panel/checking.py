"""The places to check of a result: found in steps while Slicer goes on, gone to one after another."""

from __future__ import annotations

from ..errors import InputError
from ..i18n import _
from ..results import uncertainty
from ..results.places import Places
from .steps import Steps


class CheckingPanel:
    """say: called with a line for the user."""

    def __init__(self, ui, say):
        self._say, self._node = say, None
        self._places: Places | None = None  # of the uncertainty map of this result
        self._search = Steps()  # for them
        self._last = -1  # number of the one that the views went to
        self._isAsked = False  # for one, while they are looked for
        ui.nextPlaceButton.clicked.connect(self.onNext)

    def setSegmentation(self, node) -> None:
        """Another result, or None."""
        self._node = node
        self._find(self._map())

    def release(self) -> None:
        """For the end of the widget."""
        self._search.stop()
        self._node = None

    def onNext(self, checked=False):
        volume = self._map()
        if volume is None:
            return
        if self._places is None or not self._places.isOf(volume):
            self._find(volume)
        if self._places.count is None:
            self._isAsked = True
            self._say(_("Looking for the places to check..."))
        else:
            self._goToNext()

    def _map(self):
        return None if self._node is None else uncertainty.uncertaintyOf(self._node)

    def _find(self, volume) -> None:
        """Begins to look for the places of another map, or of none."""
        self._places = None if volume is None else Places(volume)
        self._last = -1
        self._isAsked = False
        self._search.run(None if volume is None else self._steps(self._places), self._found)

    def _steps(self, places: Places):
        try:
            yield from places.steps()
        except InputError as error:  # the map is under a warp
            self._places = None
            if self._isAsked:
                self._isAsked = False
                self._say(str(error))

    def _found(self) -> None:
        if self._isAsked and self._places is not None:
            self._isAsked = False
            self._goToNext()

    def _goToNext(self) -> None:
        count = self._places.count
        if not count:
            self._say(_("No larger uncertain place was found; look at every slice all the same."))
            return
        self._last = (self._last + 1) % count
        try:
            place = self._places.place(self._last, self._node)
        except InputError as error:
            self._say(str(error))
            return
        uncertainty.jumpTo(place.ras)
        text = _("Check {number} of {count}: {question} {volume} mL")
        volume = f"{place.volume:.1f}"
        self._say(text.format(number=self._last + 1, count=count, question=place.text, volume=volume))
