"""Tests of synq_tune.process."""
