"""The same jobs done by this engine and by TRL, each in a process of its own, taking turns.

``python -m tests.benchmarks peers`` prints the table. TRL lives in an environment of its own, so that neither side's
versions bend the other's.
"""
