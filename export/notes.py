"""What an exporter writes beside a graph: of each node the lines of code that it came from.

On whose machine those lines lay is nobody's business, no server reads any of it, and it may be
half of a file.
"""

from __future__ import annotations

from typing import Any

_NOTES = ("metadata_props", "doc_string")


def drop_notes(message: Any) -> None:
    """Take the notes out of a model and of all its parts, wherever ONNX allows them."""
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                drop_notes(part)
