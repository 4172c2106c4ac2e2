"""Functions that need no Mixpanel: queries, statistics, upgrades, deletion, diagnosis, and the file of accounts.

Start with `file`.
"""
