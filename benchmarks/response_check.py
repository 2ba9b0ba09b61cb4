"""What HttpEventTrigger is given to check an answer with. It reloads this module at every poll."""

import json


async def has_completed(response):
    """Whether the evaluation has completed."""
    return json.loads(response.content)["evaluation"]["status"] == "completed"
