"""Runs that are killed at random moments, and continued: ``python -m tests.faults --kills 100``."""
