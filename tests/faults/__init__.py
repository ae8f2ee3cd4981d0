"""Faults: signals, full disks and stores that are away."""
