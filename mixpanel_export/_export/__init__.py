"""One export, from its arguments to its result.

Imports most other folders. Start with `engine.export_events`; `pipeline` runs the tasks.
"""
