"""Torture: exports that are killed, lied to and repeated at random, and compared with the truth after every step.

`python -m tests.torture` from the root of the checkout, or `nox -s torture`. Each part is seeded: what fails
prints the command that does it again. Nothing here is collected by pytest; `tests/test_torture.py` runs a little
of each part.
"""
