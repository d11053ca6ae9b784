"""The guard: what a container may have of the host, looked at when it starts."""
