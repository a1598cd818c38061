"""Reinforcement learning: groups of samples, their rewards and advantages, and a policy loss on them."""
