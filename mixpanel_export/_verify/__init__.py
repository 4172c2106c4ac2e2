"""Compares a table with Mixpanel's own counts of events, by name and day.

Start with `verify`, the entry point. `scope` decides which days and names are compared, `table_counts` reads the table,
and `compare` finds and explains the differences. `scope` and `compare` are pure functions.
"""
