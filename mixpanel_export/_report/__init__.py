"""The page of `mpx report`: queries return frozen values, `charts` and `page` turn them into HTML.

Importing `charts` or `page` needs the extra `report`; the other modules do not.
"""
