"""Checks and measurements for a machine with a GPU: ``make gpu``.

They need nothing but PyTorch, transformers, peft and safetensors.
"""
