"""The HTTP process: takes jobs and batches, answers where they stand. Never imports dspy, litellm or Celery."""
