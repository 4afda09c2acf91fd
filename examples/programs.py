"""Two DSPy programs to copy: each is a typed signature and a function that returns a `dspy.Module`.

`dspy-jobs.toml` names the function, and its types become the JSON Schemas of `GET /v1/programs/classify`:

    [programs.classify]
    factory = "examples.programs:classify"
"""

import datetime
from typing import Literal

import dspy
from pydantic import BaseModel, Field


class ClassifyTicket(dspy.Signature):
    """Sort a customer's support ticket, written in any language, so that the right team sees it in time."""

    ticket: str = dspy.InputField(desc="the customer's message as it arrived")
    category: Literal["billing", "bug", "access", "shipping", "feature_request", "other"] = dspy.OutputField()
    urgency: Literal["low", "normal", "high", "critical"] = dspy.OutputField(
        desc="critical only where people, data or a whole business are at risk now"
    )
    reason: str = dspy.OutputField(desc="one sentence in English that names what decided")


class Party(BaseModel):
    name: str = Field(description="person or organisation")
    email: str | None = None


class LineItem(BaseModel):
    description: str
    quantity: int = Field(ge=0)
    unit_price: float | None = None


class Money(BaseModel):
    amount: float
    currency: str | None = Field(None, pattern="^[A-Z]{3}$", description="ISO 4217 code, for example EUR")


class Record(BaseModel):
    kind: Literal["invoice", "credit_note", "quotation", "order", "shipment", "receipt", "meeting", "other"]
    reference: str | None = Field(None, description="the document's own number")
    date: datetime.date | None = Field(None, description="ISO 8601: of issue, of dispatch, or of the meeting")
    parties: list[Party]
    items: list[LineItem]
    total: Money | None = None


class ExtractRecord(dspy.Signature):
    """Read one business record out of a text in any language. What the text does not say is null or empty."""

    text: str = dspy.InputField(desc="an e-mail, a scan or a note")
    record: Record = dspy.OutputField()


def classify() -> dspy.Module:
    """Ticket in; category, urgency and a reason out."""
    return dspy.Predict(ClassifyTicket)


def extract() -> dspy.Module:
    """Text in, one nested `Record` out."""
    return dspy.Predict(ExtractRecord)
