"""The Celery process that runs DSPy programs; the only package that imports dspy."""

import os
from importlib.util import find_spec
from pathlib import Path

# Before dspy is imported anywhere: prices come from the table in the package, never from the network, which
# would cost the first priced call five seconds on a machine without it.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")


def _tokenizer_tables() -> Path:
    """Where tiktoken finds its tables: the folder an operator named, else the one in the litellm package.

    Before tiktoken is imported anywhere: it would fetch them from the network. litellm is found, not imported, which
    would cost seconds and 200 MiB.
    """
    given = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    if given is None:
        litellm = find_spec("litellm")
        package = Path(litellm.origin).parent if litellm and litellm.origin else Path()
        given = str(package / "litellm_core_utils" / "tokenizers")
        os.environ["TIKTOKEN_CACHE_DIR"] = given
    return Path(given)


TOKENIZER_TABLES = _tokenizer_tables()
