"""What `dspy-jobs top` shows: read over HTTP, reckoned as rates, drawn for a terminal."""
