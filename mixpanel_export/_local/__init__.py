"""Functions that work without Mixpanel: queries, statistics, upgrades, deletion, diagnosis, and the accounts file.

Start with `file`.
"""
