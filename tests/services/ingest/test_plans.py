"""Schemas: which may be used, and what they find."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.ingest.catalogue import ENTRIES, schemas
from services.ingest.plans import Schema, SchemaNotValid


def found_by(schema: Any, properties: bytes) -> list[tuple[str, str]]:
    violations = Schema(json.dumps(schema).encode()).find_violations(properties)
    return [(violation.code, violation.path) for violation in violations]


def test_every_fault_is_named_with_its_path_and_none_repeats_what_the_event_holds() -> None:
    schema = {
        "type": "object",
        "required": ["total"],
        "properties": {
            "price": {"type": "number", "maximum": 10},
            "items": {"items": {"required": ["sku"], "properties": {"sku": {"enum": ["a"]}}}},
        },
    }
    properties = b'{"price":"planted","items":[{"sku":"planted"},{}]}'

    violations = Schema(json.dumps(schema).encode()).find_violations(properties)

    assert {(violation.code, violation.path) for violation in violations} == {
        ("plan_type", "properties.price"),
        ("plan_enum", "properties.items[0].sku"),
        ("plan_required", "properties.items[1].sku"),
        ("plan_required", "properties.total"),
    }
    assert not [violation for violation in violations if "planted" in violation.message]


def test_numbers_are_held_against_bounds_digit_by_digit() -> None:
    schema = {"properties": {"total": {"maximum": 0.3, "multipleOf": 0.01}}}

    assert found_by(schema, b'{"total":0.30}') == []
    assert found_by(schema, b'{"total":0.305}') == [
        ("plan_maximum", "properties.total"),
        ("plan_multipleOf", "properties.total"),
    ]


def test_shared_parts_may_be_referred_to() -> None:
    schema = {
        "$defs": {"a/b": {"type": "string"}},
        "properties": {"x": {"$ref": "#/$defs/a~1b"}, "$ref": {"type": "string"}},
    }

    assert found_by(schema, b'{"x":1,"$ref":2}') == [
        ("plan_type", "properties.$ref"),
        ("plan_type", "properties.x"),
    ] or found_by(schema, b'{"x":1,"$ref":2}') == [
        ("plan_type", "properties.x"),
        ("plan_type", "properties.$ref"),
    ]


def nested(depth: int) -> Any:
    return {"not": nested(depth - 1)} if depth else {}


# Each part refers to the one before ten times: written out, a million.
LAUGHS = {"$defs": {"0": {"type": "string"}}, "$ref": "#/$defs/6"}
LAUGHS["$defs"] |= {  # type: ignore[operator]  # it is a dictionary
    str(n): {"anyOf": [{"$ref": f"#/$defs/{n - 1}"}] * 10} for n in range(1, 7)
}


@pytest.mark.parametrize(
    "schema",
    [
        [],
        True,
        "x",
        {"type": "money"},
        {"pattern": "("},
        {"pattern": "(?=lookahead)"},
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"$ref": "#/nowhere"},
        {"$ref": "#anchor"},
        {"$ref": "https://schemas.example/product"},
        {"$ref": "file:///etc/passwd"},
        {"$id": "https://schemas.example/", "$ref": "product"},
        {"$dynamicRef": "#x"},
        {"$schema": "https://schemas.example/draft-99"},
        {"properties": {str(number): {} for number in range(1001)}},
        {"description": "x" * 256 * 1024},
        LAUGHS,
        nested(80),
    ],
)
def test_a_schema_that_is_none_or_could_take_the_time_of_all_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaNotValid):
        Schema(json.dumps(schema).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 5000, b'{"type":"\\ud800"}'])
def test_what_is_no_json_is_no_schema(text: bytes) -> None:
    with pytest.raises(SchemaNotValid):
        Schema(text)


def test_a_pattern_takes_no_longer_for_a_text_that_is_made_to_be_slow() -> None:
    assert found_by({"properties": {"x": {"pattern": "^(a+)+$"}}}, b'{"x":"%b!"}' % (b"a" * 9000))


@pytest.mark.parametrize("properties", [b'{"a":"\\ud800"}', b"[" * 5000, b"{"])
def test_properties_that_can_not_be_read_are_a_violation(properties: bytes) -> None:
    assert found_by({}, properties) == [("plan_not_json", "properties")]


def test_the_catalogue_has_the_events_of_the_spec_under_their_old_names_too() -> None:
    assert len(ENTRIES) == 28
    assert schemas()["Completed Order"] == schemas()["Order Completed"]
    for text in schemas().values():
        Schema(text)


@pytest.mark.parametrize(
    ("name", "properties", "paths"),
    [
        ("Order Completed", {"order_id": "1", "total": 27.5, "coupon": None, "own": [1]}, []),
        ("Order Completed", {"order_id": 1, "total": "27.50", "products": [{"sku": 7}]}, []),
        ("Order Completed", {"total": 1}, ["properties.order_id"]),
        ("Order Completed", {"order_id": None}, ["properties.order_id"]),
        ("Order Completed", {"order_id": "1", "total": "a lot"}, ["properties.total"]),
        ("Order Completed", {"order_id": "1", "currency": "EURO"}, ["properties.currency"]),
        (
            "Order Refunded",
            {"order_id": "1", "products": [{"price": "x"}]},
            ["properties.products[0].price"],
        ),
        ("Product Viewed", {"sku": "a"}, []),
        ("Product Viewed", {"sku": None, "name": "x"}, ["properties"]),
        ("Products Searched", {}, ["properties.query"]),
        ("Product List Filtered", {"filters": [{"type": "a", "value": 1}]}, []),
        ("Coupon Denied", {"coupon": "X"}, []),
        ("Cart Viewed", {}, []),
    ],
)
def test_the_catalogue_asks_for_what_an_event_is_worth_nothing_without(
    name: str, properties: dict[str, Any], paths: list[str]
) -> None:
    violations = Schema(schemas()[name]).find_violations(json.dumps(properties).encode())

    assert [violation.path for violation in violations] == paths
