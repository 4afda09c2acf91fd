"""What every dspy-jobs process agrees on, and what a user imports: states, records, settings, store, client.

Nothing here imports dspy, FastAPI or Celery, so that a client stays light.
"""

__version__ = "0.1.0"
