"""JSON with a checksum, so that what a disk has damaged is not taken for what was written.

A digit that has changed is JSON still, and could make a promise end years too early.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

_SUM = "sum"


def sealed(fields: Mapping[str, Any]) -> str:
    """Write `fields` as JSON, with a checksum; `unsealed` understands it."""
    return json.dumps({**fields, _SUM: _sum(fields)})


def unsealed(text: bytes) -> Mapping[str, Any]:
    """Read what `sealed` has written; raise ValueError when it is not as it was then."""
    try:
        fields = json.loads(text)
        found = fields.pop(_SUM)
        if hmac.compare_digest(found, _sum(fields)):
            return dict(fields)
    except (AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"it cannot be read: {error!r}") from error
    raise ValueError("it is damaged")


def _sum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
