"""One trial: what it needs, its stages, its evaluation, its memory."""
