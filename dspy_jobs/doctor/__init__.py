"""What `dspy-jobs doctor` looks at: each module one part of an installation, each look a few findings."""
