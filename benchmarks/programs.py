"""The programs that are measured besides `question -> answer`."""

from __future__ import annotations

import dspy


class Echo(dspy.Module):  # type: ignore[misc]
    """Gives its text back without a model call, so that only the queue is measured."""

    def forward(self, text: str) -> dspy.Prediction:
        """Answer with the text."""
        return dspy.Prediction(answer=text)


def echo() -> dspy.Module:
    """Gives its text back."""
    return Echo()
