"""The ways to run workers: as processes here, under Compose, in a cluster, or only in words."""
