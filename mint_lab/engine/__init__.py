"""The only place that owns model weights: loading, packing, the one trunk pass, sampling, checkpoints."""
