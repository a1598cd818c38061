"""How an optimizer step is made: the recipe protocol and the recipes ``preference``, ``sft`` and ``rl``."""
