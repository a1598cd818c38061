"""Running functions that a person wrote: cancel them, capture their output, locate the failing line, check the result."""
