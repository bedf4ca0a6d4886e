import math

import pytest

from sandbox.faults import Faults, read_faults


def test_without_orders_nothing_is_wrong() -> None:
    assert read_faults({"other": "1"}, {"PATH": "/bin"}) == (Faults(), [])


def test_every_order_is_read_from_annotations() -> None:
    annotations = {
        "sandbox/error-rate": "0.25",
        "sandbox/latency-seconds": "1.5",
        "sandbox/refuse": "true",
        "sandbox/crash": "now",
        "sandbox/crash-after-seconds": "60",
        "sandbox/start-seconds": "2",
        "sandbox/cpu-cores": "0.5",
        "sandbox/memory-bytes": "3e9",
    }
    assert read_faults(annotations, {}) == (Faults(0.25, 1.5, True, "now", 60, 2, 0.5, 3e9), [])  # noqa: FBT003  by position


def test_every_order_is_read_from_the_environment() -> None:
    variables = {
        "SANDBOX_ERROR_RATE": "1",
        "SANDBOX_LATENCY_SECONDS": "0",
        "SANDBOX_REFUSE": "False",
        "SANDBOX_CRASH": "",
        "SANDBOX_CRASH_AFTER_SECONDS": "0.5",
        "SANDBOX_START_SECONDS": "3",
        "SANDBOX_CPU_CORES": "2",
        "SANDBOX_MEMORY_BYTES": "0",
    }
    ordered = Faults(error_rate=1, crash_after_seconds=0.5, start_seconds=3, cpu_cores=2)
    assert read_faults({}, variables) == (ordered, [])


def test_annotations_win() -> None:
    faults, _ = read_faults({"sandbox/error-rate": "0"}, {"SANDBOX_ERROR_RATE": "1"})
    assert faults.error_rate == 0


@pytest.mark.parametrize(
    ("order", "value", "allowed"),
    [
        ("error-rate", "1.01", "a number from 0 to 1"),
        ("error-rate", "nan", "a number from 0 to 1"),
        ("error-rate", "", "a number from 0 to 1"),
        ("latency-seconds", "-1", "seconds, 0 or more"),
        ("latency-seconds", "inf", "seconds, 0 or more"),
        ("latency-seconds", "5s", "seconds, 0 or more"),
        ("refuse", "yes", "true or false"),
    ],
)
def test_an_impossible_value_is_left_out_and_named(order: str, value: str, allowed: str) -> None:
    faults, problems = read_faults({f"sandbox/{order}": value, "sandbox/start-seconds": "1"}, {})
    assert faults == Faults(start_seconds=1)
    assert problems == [f'sandbox/{order} is "{value}"; allowed is {allowed}']


def test_an_unknown_order_is_named_with_those_there_are() -> None:
    faults, problems = read_faults({}, {"SANDBOX_EROR_RATE": "1"})
    assert faults == Faults()
    assert len(problems) == 1
    assert problems[0].startswith("SANDBOX_EROR_RATE is no order of the sandbox. Those are: error-rate, ")


def test_no_crash_is_ordered_by_default() -> None:
    assert Faults().crash_after_seconds == math.inf
    assert not Faults().crash
