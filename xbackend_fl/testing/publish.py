"""The published contracts in ``schemas/``: JSON Schemas generated from the code.

``python -m xbackend_fl.testing.publish schemas`` writes them; a test fails while they differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from xbackend_fl import events
from xbackend_fl.canonical import binding, schema
from xbackend_fl.certificate import statement as certificate
from xbackend_fl.course import Course


def published() -> dict[str, str]:
    """File name to content."""
    documents: dict[str, dict[str, Any]] = {
        "binding.v1.json": binding.json_schema(),
        "certificate.v1.json": certificate.json_schema(),
        "course.v1.json": Course.model_json_schema(),
        "event.v1.json": events.json_schema(),
        "schema.v1.json": schema.json_schema(),
    }
    return {
        name: json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema"} | document, indent=1, sort_keys=True
        )
        + "\n"
        for name, document in documents.items()
    }


def write(folder: Path) -> None:
    """Write all documents into ``folder``."""
    for name, text in published().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
