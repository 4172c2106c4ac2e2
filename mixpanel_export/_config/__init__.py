"""The user's settings: environment variables, the configuration file, the server's URL, and masked secrets.

Imports only `_files` and `errors`. `_local/accounts` changes the configuration file.
"""
