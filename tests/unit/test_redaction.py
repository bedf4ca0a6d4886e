"""No secret of the configuration leaves with an event, and what things are called stays."""

from canary_service.rollout.events import Finished, Held, Sampled, Troubled
from canary_service.rollout.redaction import without
from tests.unit.journals import STACK, rolled_back


def test_a_secret_is_replaced_wherever_a_text_holds_it() -> None:
    troubled = Troubled(at=1, stack=STACK, text="password hunter22 was refused: hunter2 is not it")
    finished = Finished(at=1, stack=STACK, outcome="failed", exit_code=4, text="hunter2")
    sampled = next(event for event in rolled_back() if isinstance(event, Sampled))

    assert without(troubled, ["hunter2", "hunter22"]).text == "password [secret] was refused: [secret] is not it"
    assert without(finished, ["hunter2", "failed"]) == finished.model_copy(update={"text": "[secret]"})
    assert "[secret]" in without(sampled, ["pods are ready"]).verdict.gates[0].text


def test_names_stay_although_a_secret_is_the_same() -> None:
    held = Held(at=1, stack=STACK, services=("cart", "shop"), reason="cart waits")

    assert without(held, ["cart", STACK]) == held.model_copy(update={"reason": "[secret] waits"})


def test_without_secrets_nothing_changes() -> None:
    for event in rolled_back():
        assert without(event, ["", "ab", "true"]) == event
