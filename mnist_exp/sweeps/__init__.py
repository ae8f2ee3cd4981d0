"""Several experiments: jobs, search, progress, resuming and ranking."""
