"""Settings for all tests."""

from hypothesis import settings

# A shared machine may stall anywhere, and how long an example takes is no claim of any test.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
