"""Run user-written functions: cancel them, capture their output, locate the failing line, check the result."""
