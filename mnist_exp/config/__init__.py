"""From conf/ and what is typed to a checked `Config`."""
