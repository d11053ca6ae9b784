"""The ds01 command: parse, call, print."""
