"""Several runs: trained side by side, laid over each other, and their gradients compared."""
