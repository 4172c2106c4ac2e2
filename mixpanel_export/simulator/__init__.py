"""An independent Mixpanel to export from: deterministic events, their truth, and everything that goes wrong.

    simulator = Simulator(events_per_day=1000)
    async with simulator.serve() as url:
        ...  # export from url
    assert checksum(rows) == simulator.truth(first, last).checksum

It shares no code with the exporter, so that the two can disagree.
"""

from mixpanel_export.simulator.api import RequestLog
from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.faults import Fault
from mixpanel_export.simulator.query import Rules
from mixpanel_export.simulator.simulator import Simulator
from mixpanel_export.simulator.truth import Row, Truth, checksum

__all__ = ["Change", "Fault", "RequestLog", "Row", "Rules", "Simulator", "Truth", "checksum"]
