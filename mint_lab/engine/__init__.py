"""The only package that uses model weights: loading, packing, forward and backward passes, sampling, checkpoints."""
