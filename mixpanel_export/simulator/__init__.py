"""A simulated Mixpanel project to export from, with deterministic events and all known failures of the real service.

It computes the correct result of every export. It shares no code with the exporter, so an error in either one shows up
as a difference.

You can use it in your own tests, with any client. A pytest fixture that serves a project on a free port:

    import pytest
    from anyio.from_thread import start_blocking_portal
    from mixpanel_export.simulator import Simulator


    @pytest.fixture
    def mixpanel():
        simulator = Simulator(events_per_day=1000, per_second=0, per_hour=0)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator.serve()) as url:
            yield simulator, url

A test exports from `url` and compares the result with `simulator.truth(first, last)`. README.md in this folder has
examples of such tests, and an overview of the simulator.
"""

from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.counts import Counting
from mixpanel_export.simulator.engage import ProfileRules
from mixpanel_export.simulator.faults import Fault
from mixpanel_export.simulator.parse import Rules
from mixpanel_export.simulator.profiles import Cohort, ProfileRow
from mixpanel_export.simulator.reply import RequestLog
from mixpanel_export.simulator.simulator import Simulator
from mixpanel_export.simulator.truth import Row, Truth, checksum

__all__ = [
    "Change",
    "Cohort",
    "Counting",
    "Fault",
    "ProfileRow",
    "ProfileRules",
    "RequestLog",
    "Row",
    "Rules",
    "Simulator",
    "Truth",
    "checksum",
]
