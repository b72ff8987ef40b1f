"""This process among others: signals, standard streams, the command line it was started with.

Nothing but the standard library: every command has this before anything else is imported.
"""
