"""What each script runs: one file per command."""
