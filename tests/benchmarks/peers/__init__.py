"""The same jobs in this engine and in TRL, in separate, alternating processes.

``python -m tests.benchmarks peers`` prints the table. TRL has a separate environment, so that neither side's versions
constrain the other's.
"""
