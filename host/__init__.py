"""The operating system: peers, users, listeners, files."""
