"""A model server that is not a language model: demos, tests and load runs need no provider, key or money.

It speaks OpenAI's HTTP dialect. Answers are computed from the prompt by fixed rules; faults come on request.
"""

NOTICE = (
    "This is the dspy-jobs sandbox. It is not a language model: it understands nothing and computes "
    "type-correct answers from the prompt by fixed rules, for demos, tests and load."
)

#: Stands in every answer, so that no stored output can be mistaken for a model's.
FINGERPRINT = "sandbox-not-a-language-model"
