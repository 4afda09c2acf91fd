"""The example programs build, and promise typed fields."""

import datetime

import dspy
import pytest
from pydantic import ValidationError

from examples import programs


def signature_of(module: dspy.Module) -> type[dspy.Signature]:
    """The signature of a module's one predictor."""
    [predictor] = module.predictors()
    signature: type[dspy.Signature] = predictor.signature
    return signature


def test_classify_has_typed_fields() -> None:
    """A ticket goes in; a category and an urgency from closed lists and a reason come out."""
    signature = signature_of(programs.classify())
    schema = signature.model_json_schema()["properties"]
    assert list(signature.input_fields) == ["ticket"]
    assert list(signature.output_fields) == ["category", "urgency", "reason"]
    assert schema["category"]["enum"] == ["billing", "bug", "access", "shipping", "feature_request", "other"]
    assert schema["urgency"]["enum"] == ["low", "normal", "high", "critical"]
    assert schema["reason"]["type"] == "string"


def test_extract_returns_a_nested_record() -> None:
    """A text goes in; one record with nested parties, items and total comes out."""
    signature = signature_of(programs.extract())
    schema = signature.model_json_schema()
    record = schema["$defs"]["Record"]["properties"]
    assert list(signature.input_fields) == ["text"]
    assert list(signature.output_fields) == ["record"]
    assert schema["properties"]["record"]["$ref"] == "#/$defs/Record"
    assert record["parties"]["items"]["$ref"] == "#/$defs/Party"
    assert record["items"]["items"]["$ref"] == "#/$defs/LineItem"
    assert {"$ref": "#/$defs/Money"} in record["total"]["anyOf"]
    assert {"type": "string", "format": "date"} in record["date"]["anyOf"]


def test_each_call_builds_a_new_program() -> None:
    """A factory never hands the same module out twice, so jobs cannot share its state."""
    assert programs.classify() is not programs.classify()
    assert programs.extract() is not programs.extract()


def test_a_record_reads_iso_dates_and_omitted_fields() -> None:
    """What the text did not say may be missing from the answer."""
    record = programs.Record.model_validate_json(
        '{"kind": "order", "date": "2025-06-30", "parties": [], "items": [{"description": "felt", "quantity": 9}]}'
    )
    assert record.date == datetime.date(2025, 6, 30)
    assert record.items[0].unit_price is None
    assert record.total is None


@pytest.mark.parametrize("currency", ["euro", "eur", "€"])
def test_a_currency_is_a_three_letter_code(currency: str) -> None:
    """A symbol or a word is not taken for a currency code."""
    with pytest.raises(ValidationError, match="currency"):
        programs.Money.model_validate({"amount": 1, "currency": currency})
