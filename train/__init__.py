"""Train the Flax networks: data, recipes, jit-compiled SGD steps, checkpoints, command line."""
