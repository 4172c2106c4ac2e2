"""One export from its arguments to its result.

Imports all folders above it. Start with `engine.export_events`; `pipeline` runs the tasks.
"""
