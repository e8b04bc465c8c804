"""The operator's pages under ``/admin``: rendered by the server, without any script."""
