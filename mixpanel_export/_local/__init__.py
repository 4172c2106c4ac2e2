"""What works on a database file without Mixpanel: queries, statistics, upgrades, diagnosis.

Imports `_database`. Start with `file`.
"""
