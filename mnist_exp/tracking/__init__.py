"""The record of runs and sweeps, and how it is read again."""
