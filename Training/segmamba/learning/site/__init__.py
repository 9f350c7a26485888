"""The folder of a site: corrected cases, models, runs and old data in one place.

And what makes of the first a better one of the second. The layout and the JSON: SITE.md.

Everything but `stages` and `data` is imported without torch, nibabel or numpy: how a site stands is asked often.
"""

from __future__ import annotations

from segmamba.learning.site.detached import detach
from segmamba.learning.site.improvement import improve
from segmamba.learning.site.layout import Site
from segmamba.learning.site.status import ask_to_stop
from segmamba.learning.site.summary import summarise

__all__ = ["Site", "ask_to_stop", "detach", "improve", "summarise"]
