"""What HttpEventTrigger checks a response with. It reloads this module at every poll."""

from __future__ import annotations

import json
from typing import Any


async def has_completed(response: Any) -> bool:
    """Whether the evaluation has completed."""
    return bool(json.loads(response.content)["evaluation"]["status"] == "completed")
