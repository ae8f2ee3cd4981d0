"""What is recorded of runs and sweeps, and how it is read again."""
