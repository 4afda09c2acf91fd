"""The Celery process that runs DSPy programs; the only package that imports dspy."""

import os

# Before dspy is imported anywhere: prices come from the table in the package, never from the network, which
# would cost the first priced call five seconds on a machine without it.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
