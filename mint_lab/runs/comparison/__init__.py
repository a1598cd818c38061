"""Several runs: trained side by side, drawn over each other, and their gradients compared."""
