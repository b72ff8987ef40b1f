"""Ctrl+C, SIGTERM and SIGHUP, as the driver of a study takes them."""

from synq_tune.process.signals import Interrupts

__all__ = ["Interrupts"]
