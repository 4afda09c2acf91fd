"""The whole service on one machine: Redis, sandbox, workers, API and Flower under one parent process."""
