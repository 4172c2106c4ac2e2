"""What the status of a failed response means for the retry policy and for the quota.

`_source/responses.py` turns a response into an error with a reason and advice.
"""

SERVER_ERRORS = frozenset({408, 409, 421, 425, 499, *range(500, 1000)})
"""Statuses that may be temporary, so the request is retried. Proxies often send those below 500."""

TIMEOUTS = frozenset({400, 408, 504})
"""Statuses that mean, in a `ServerError`, that the server ran out of time. The chunk may be too large."""

TOO_LARGE = frozenset({400})
"""Statuses that mean, in a `ServerError`, that the chunk is too large. Mixpanel reports its own time-out with 400."""

UNCOUNTED = frozenset({401, 402, 429})
"""Statuses that exempt a request from Mixpanel's hourly quota, whatever the body says."""
