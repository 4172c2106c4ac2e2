"""The HTTP statuses that the retry policy and the quota distinguish.

`_source/responses.py` converts a response into an error with a reason and advice.
"""

SERVER_ERRORS = frozenset({408, 409, 421, 425, 499, *range(500, 1000)})
"""Statuses that may be temporary, so the request is retried. Statuses below 500 usually come from proxies."""

TIMEOUTS = frozenset({400, 408, 504})
"""If a `ServerError` has one of these statuses, the server ran out of time. The chunk may be too large."""

TOO_LARGE = frozenset({400})
"""If a `ServerError` has one of these statuses, the chunk is too large. Mixpanel reports its own time-out with 400."""

UNCOUNTED = frozenset({401, 402, 429})
"""Mixpanel does not count a request against the hourly quota if the response has one of these statuses."""
