"""dockerd's AuthZ plugin protocol: the second gate."""
