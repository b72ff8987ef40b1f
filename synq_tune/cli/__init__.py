"""The arguments of each command: parse, one call, print."""
