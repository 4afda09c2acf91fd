"""Side-by-side measurements: this project against bare DSPy, plain Celery, and an API that does nothing.

`python -m benchmarks` runs them all. Contenders take turns on the same machine within the same minute, so that what
else runs there meets them alike; ratios are what counts, absolute figures belong to the machine they were made on.
"""
