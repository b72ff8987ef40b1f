"""Figures of SynQ's paper: the numbers behind each kind, and what is drawn of them."""
