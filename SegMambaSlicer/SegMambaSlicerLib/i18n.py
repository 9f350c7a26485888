"""Texts for the user, in the user's language where Slicer has a translation."""

try:
    from slicer.i18n import tr as _  # takes the translation context from the file of its caller
except ImportError:  # Slicer's libraries without the application

    def _(text: str) -> str:
        return text


__all__ = ["_"]
