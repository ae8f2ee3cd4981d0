"""Faults while something is written: signals, full disks."""
