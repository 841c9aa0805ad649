"""What the tests of files around a certificate share."""

from __future__ import annotations

import json

from xbackend_fl.canonical import Schema
from xbackend_fl.certificate import Certificate


def schema_of(certificate: Certificate) -> Schema:
    return Schema.from_json(json.dumps(certificate.statement.schema))
