"""Faults: signals, full disks, and inputs that nobody would think of."""
