"""Web pages mounted on the server."""
