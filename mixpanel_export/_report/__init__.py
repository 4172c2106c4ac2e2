"""The page of `mpx report`: queries return frozen values, which `charts` and `page` convert into HTML.

Importing `charts` or `page` requires the `report` extra; the other modules do not require it.
"""
