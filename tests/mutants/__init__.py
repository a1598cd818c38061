"""``python -m tests.mutants PACKAGE``: which planted mistakes the tests of a package find."""
