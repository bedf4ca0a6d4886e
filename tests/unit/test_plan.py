"""What a preview is turned into, from events that the engine wrote on a sandbox (tests/unit/data)."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from canary_service.cli import markdown, text
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.engine_events import SECRET, EventStream, encrypted_values, read
from canary_service.rollout.guards import IDENTIFIER, missing_namespace, unknown_kind
from canary_service.rollout.plan import (
    Before,
    ObjectPlan,
    Plan,
    PolicyFinding,
    Target,
    planned,
    removed_services,
    stack_of,
    state_before,
)
from canary_service.rollout.redaction import without
from canary_service.workload.live import LiveService

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "data" / "plan"
NAME = "cart"
TARGET = Target("macromind", "dev")
NO_CLUSTER = "no cluster to talk to: ConfigError: there is no kubeconfig at /nonexistent"


def lines(recording: str) -> list[str]:
    return (RECORDED / f"{recording}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


def stream_of(recording: str) -> EventStream:
    return read(lines(recording))


def settings_of(stream: EventStream, **changes: Any) -> Settings:  # noqa: ANN401 - values of any key of the service
    """Return the recorded configuration, with other settings of the service; None removes one."""
    assert stream.config
    raw = {key.removeprefix("macromind:"): value for key, value in stream.config.items()}
    services = json.loads(raw["services"])
    services[NAME] = {key: value for key, value in (services[NAME] | changes).items() if value is not None}
    # A header has no brackets, and so cannot be the word that stands for it.
    return load(raw | {"services": json.dumps(services).replace(f'"value": "{SECRET}"', '"value": "hidden"')})


def before(stream: EventStream, settings: Settings, *, missing: str = "", rate: float | None = None) -> Before:
    """Return what a cluster would have that is as the last update left it."""
    rates = {} if rate is None else dict.fromkeys([*settings.services, *removed_services(settings, stream.steps)], rate)
    return Before(state_before(settings, stream.steps), missing, rates=rates)


def plan_of(recording: str, *, rate: float | None = None, missing: str = "") -> Plan:
    stream = stream_of(recording)
    settings = settings_of(stream)
    failed = recording in ("failed", "refused", "violated")
    return planned(
        TARGET,
        stream,
        settings,
        before(stream, settings, missing=missing, rate=rate),
        failed=failed,
    )


def weights(plan: Plan) -> dict[str, tuple[int | None, int | None]]:
    return {service.name: (service.weight.before, service.weight.after) for service in plan.services}


@pytest.mark.parametrize(
    ("recording", "change", "weight", "moved", "said"),
    [
        ("first", "first deploy", (None, 20), None, "cart: first deploy, canary at 20 %"),
        ("shift", "shift", (20, 50), 12, "cart: canary 20 % → 50 %"),
        ("promotion", "promotion", (50, None), 20, "cart: promotion at 50 %"),
        ("abort", "abort", (50, None), 20, "cart: the canary is removed, 50 % back to stable"),
        ("image", "canary image", (20, 20), 8, "cart: another image in the canary, 20 %"),
        ("settings", "update", (20, 20), 0, "cart: no traffic moves, pods or settings change"),
    ],
)
def test_a_preview_is_told_by_what_it_does_to_traffic(
    recording: str, change: str, weight: tuple[int | None, int | None], moved: float | None, said: str
) -> None:
    plan = plan_of(recording, rate=None if moved is None else 40)
    (service,) = plan.services

    assert (plan.outcome, service.change, weights(plan)) == ("changes", change, {NAME: weight})
    assert (service.requests_per_second.moved if service.requests_per_second else None) == moved
    assert text.render(plan).splitlines()[0] == f"dev: {said}"


def test_an_update_that_moves_no_weight_but_has_a_risk_is_not_said_to_move_nothing() -> None:
    plan = plan_of("settings")
    risky = plan.services[0].model_copy(update={"risks": ("plain HTTP gets status 404",)})
    said = text.render(plan.model_copy(update={"services": (risky,)}))
    assert said.splitlines()[0] == "dev: cart: no weight changes, but requests are at risk"


@pytest.mark.parametrize(
    ("recording", "change", "after", "said"),
    [
        ("shift", "shift", 50, "cart: canary ? → 50 %"),
        ("settings", "shift", 20, "cart: canary ? → 20 %"),
        ("image", "canary image", 20, "cart: another image in the canary, ? → 20 %"),
        ("promotion", "promotion", None, "cart: promotion at ? %"),
        ("abort", "abort", None, "cart: the canary is removed, ? % back to stable"),
    ],
)
def test_a_weight_that_cannot_be_read_is_not_told(recording: str, change: str, after: int | None, said: str) -> None:
    stream = stream_of(recording)
    known = before(stream, settings_of(stream), rate=40)
    live = {NAME: replace(known.live[NAME], split=None, unreadable="two rules")}

    plan = planned(TARGET, stream, settings_of(stream), replace(known, live=live), failed=False)

    (service,) = plan.services
    assert (service.change, service.unreadable, weights(plan)) == (change, "two rules", {NAME: (None, after)})
    assert service.requests_per_second is None
    assert any(risk.endswith("two rules") for risk in service.risks)
    assert text.render(plan).splitlines()[0] == f"dev: {said}"


def test_nothing_changes_in_one_line() -> None:
    plan = plan_of("nothing", rate=40)

    assert text.render(plan) == "dev: nothing changes\n"
    assert markdown.render(plan).splitlines() == [
        "<!-- canary-plan:dev -->",
        "### :white_check_mark: `dev`: nothing changes",
    ]
    assert (plan.outcome, plan.unchanged_objects, plan.objects) == ("unchanged", 9, ())


@pytest.mark.parametrize(
    ("changes", "moved", "said"),
    [
        (
            {"image": "registry.example/cart:7.7"},
            80,
            "cart: stable changes to registry.example/cart:7.7, canary 20 % → 50 %",
        ),
        (
            {"image": "registry.example/cart:7.7", "canary": None},
            100,
            "cart: stable changes to registry.example/cart:7.7",
        ),
        ({"path": "/elsewhere"}, 100, "cart: its route moves"),
    ],
)
def test_requests_that_meet_another_stable_or_lose_their_route_are_counted(
    changes: dict[str, Any], moved: float, said: str
) -> None:
    stream = stream_of("shift")
    settings = settings_of(stream, **changes)
    plan = planned(TARGET, stream, settings, before(stream, settings, rate=100), failed=False)

    (requests,) = [service.requests_per_second for service in plan.services]
    assert requests is not None
    assert requests.moved == moved
    assert said in text.render(plan).splitlines()[0]


def test_a_name_is_not_hidden_although_a_secret_equals_it() -> None:
    cleared = without(plan_of("shift"), ["dev", NAME, "Ingress"])

    assert cleared.stack == "dev"
    assert {each.name for each in cleared.services} == {NAME}
    assert markdown.render(cleared).startswith("<!-- canary-plan:dev -->")


def test_requests_that_nothing_counted_are_absent_and_never_guessed() -> None:
    assert plan_of("shift").services[0].requests_per_second is None
    assert "/s" not in text.render(plan_of("shift"))
    assert "about 12 of 40/s to the canary" in text.render(plan_of("shift", rate=40))
    assert "about 20 of 40/s back to stable" in text.render(plan_of("abort", rate=40))
    assert "0 of 0/s" in text.render(plan_of("shift", rate=0))


def test_without_a_cluster_nothing_changes_only_since_the_last_update() -> None:
    (line,) = text.render(plan_of("nothing", missing=NO_CLUSTER)).splitlines()

    assert line == "dev: nothing changes since the last update; no cluster could be asked"


def test_objects_are_named_with_what_changes_in_them() -> None:
    plan = plan_of("promotion")

    assert [f"{each.operation} {each.kind} {each.name}" for each in plan.objects if each.kind != "ConfigMap"] == [
        "update Deployment cart",
        "update Ingress cart",
        "update Service cart",
        "delete Deployment cart-canary",
        "delete Ingress cart-canary",
        "delete Service cart-canary",
    ]
    assert "~ Deployment cart: label version, pod labels, image" in text.render(plan)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("spec.groups[0].rules[3].expr", "spec.groups[0].rules[4].expr"), "declared weights"),
        (("spec.groups[0].rules[3].labels.image", "spec.groups[1].rules[17].expr"), "declared weights, rules"),
    ],
)
def test_what_changes_in_the_rules_is_said_in_words(fields: tuple[str, ...], said: str) -> None:
    rule = ObjectPlan(operation="update", kind="PrometheusRule", name="shop-dev", fields=fields)

    assert text.render(plan_of("shift").model_copy(update={"objects": (rule,)})).endswith(
        f"~ PrometheusRule shop-dev: {said}\n"
    )


def test_what_is_of_no_one_service_comes_last_among_the_objects() -> None:
    services = [each.service for each in plan_of("first").objects]

    assert services == sorted(services, key=lambda name: name is None)
    assert None in services


def test_what_stays_in_the_cluster_is_not_said_to_be_deleted() -> None:
    kept = [each.name for each in plan_of("promotion").objects if each.operation == "release"]

    assert [name.rpartition("-")[0] for name in kept] == ["cart-canary"]


def test_pods_and_configuration_are_told_by_name_and_without_values() -> None:
    (service,) = plan_of("settings").services

    assert (service.stable.pods_before, service.stable.pods_after) == (4, 6)
    assert [each for each in service.changes if each.startswith("stable")] == [
        "stable: ConfigMap: CACHE changed, SIZE added",
        "stable: environment: LOG changed, MODE removed, NEW added",
        "stable: pods: resources.limits.memory",
    ]


def test_images_before_and_after_are_those_of_cluster_and_configuration() -> None:
    (service,) = plan_of("promotion").services

    images = (service.stable.image_before, service.stable.image_after, service.canary.image_before)
    assert images == ("registry.example/cart:1.0", "registry.example/cart:2.0", "registry.example/cart:2.0")
    assert service.canary.image_after is None


def test_a_service_that_is_removed_loses_all_of_its_requests() -> None:
    plan = plan_of("removed", rate=40)
    (gone,) = plan.changed

    assert (gone.name, gone.change) == ("pay", "removed")
    assert gone.requests_per_second
    assert gone.requests_per_second.moved == 40
    assert "its requests get no answer any more" in gone.risks[0]


def test_a_refusal_is_told_with_its_fix_and_beside_what_was_asked_for() -> None:
    stream = stream_of("refused")
    settings = settings_of(stream)
    live = state_before(settings_of(stream_of("shift")), stream_of("shift").steps)
    plan = planned(TARGET, stream, settings, Before(live), failed=True)

    assert (plan.outcome, plan.errors) == ("refused", ())
    assert [(each.key, each.fix) for each in plan.refusals] == [("canaryWeight", "pulumi config set canaryWeight 70")]
    assert weights(plan) == {NAME: (20, 90)}
    assert "fix:     pulumi config set canaryWeight 70" in markdown.render(plan)


def test_what_keeps_any_update_from_a_cluster_is_a_refusal_too() -> None:
    stream = stream_of("shift")
    settings = settings_of(stream)
    refused = replace(before(stream, settings), refused=(missing_namespace(settings),))
    plan = planned(TARGET, stream, settings, refused, failed=True)

    assert (plan.outcome, [each.fix for each in plan.refusals]) == ("refused", ["kubectl create namespace shop"])


def test_of_a_router_whose_objects_the_cluster_does_not_know_nothing_but_the_refusal_is_told() -> None:
    stream = stream_of("shift")
    settings = settings_of(stream)
    plan = planned(
        TARGET,
        stream,
        settings,
        Before({}, refused=(unknown_kind(settings, "no HTTPRoute", ["traefik"]),)),
        failed=True,
    )

    assert (plan.outcome, plan.services, plan.weights_from) == ("refused", (), None)
    assert text.render(plan).startswith("dev: refused: 1 ")
    assert "canary" not in markdown.render(plan).replace("canary-plan", "").split("fix:")[0]


def test_objects_of_the_same_stack_are_its_own_whatever_organisation_it_is_named_with() -> None:
    assert Target("macromind", "acme/macromind/dev").owner == TARGET.owner == "macromind/dev"


def test_a_mandatory_finding_stops_and_an_advisory_one_is_told() -> None:
    plan = plan_of("violated")

    assert plan.outcome == "violated"
    assert [(each.severity, each.object, each.rule) for each in plan.policies] == [
        ("mandatory", "Ingress cart-canary", "weight-limit"),
        ("advisory", "Stack macromind-dev", "owner"),
    ]
    assert text.render(plan).startswith("dev: stopped by policy: 1 mandatory finding\n")
    assert plan.errors == ()


def test_an_advisory_finding_alone_stops_nothing() -> None:
    stream = stream_of("violated")
    advisory = replace(stream, findings=tuple(each for each in stream.findings if each.level == "advisory"))
    settings = settings_of(stream)

    assert planned(TARGET, advisory, settings, before(stream, settings), failed=False).outcome == "changes"


def test_a_failed_preview_gives_the_reason_and_not_its_echo() -> None:
    plan = plan_of("failed")

    assert plan.outcome == "failed"
    assert len(plan.errors) == 1
    assert ".spec.template.spec.nosuch: field not declared in schema" in plan.errors[0]


def test_without_a_cluster_the_weights_are_those_of_the_state_and_it_says_so() -> None:
    plan = plan_of("no-cluster", missing=NO_CLUSTER)

    assert (plan.weights_from, weights(plan)) == ("state", {NAME: (20, 50)})
    assert plan.notes[0].startswith(f"{NO_CLUSTER}. The weights before are those of the last update")
    assert plan.warnings == ()
    assert "Not known\n  no cluster" in text.render(plan)
    assert plan_of("no-cluster").weights_from == "cluster"


def test_without_a_cluster_a_refusal_is_foretold_and_not_claimed() -> None:
    stream = stream_of("shift")
    assert stream.config
    far = replace(stream, config={**stream.config, "macromind:canaryWeight": "90"})
    settings = settings_of(far)
    plan = planned(TARGET, far, settings, before(far, settings, missing=NO_CLUSTER), failed=False)

    assert (plan.outcome, plan.refusals) == ("changes", ())
    assert "if the cluster is as the last update left it, this is refused: canaryWeight = 90" in plan.notes[1]


def test_what_an_unfinished_preview_did_not_see_of_the_state_is_not_taken_for_nothing() -> None:
    assert plan_of("failed", missing=NO_CLUSTER).services == ()


def test_a_weight_that_somebody_set_by_hand_is_told_although_nothing_else_changes() -> None:
    stream = stream_of("nothing")
    settings = settings_of(stream)
    plan = planned(TARGET, stream, settings, Before(with_weight(stream, settings, 70)), failed=False)

    assert (plan.outcome, weights(plan)) == ("changes", {NAME: (70, 20)})
    assert "falls to 20 % ahead of everything else" in plan.services[0].risks[0]


def test_an_object_that_is_put_back_is_a_change_although_the_engine_sees_none() -> None:
    event = json.loads(next(line for line in lines("nothing") if "apps/v1:Deployment::cart-canary" in line))
    message = "Deployment cart-canary was changed by kubectl: `pulumi up` applies what is declared"
    said = {"urn": event["resourcePreEvent"]["metadata"]["urn"], "message": message, "severity": "warning"}
    stream = read([*lines("nothing"), json.dumps({"diagnosticEvent": said}) + "\n"])
    settings = settings_of(stream)
    plan = planned(TARGET, stream, settings, before(stream, settings), failed=False)

    assert (plan.outcome, plan.services[0].change, plan.warnings) == ("changes", "update", (message,))
    assert [(each.operation, each.kind, each.name, each.service) for each in plan.objects] == [
        ("restore", "Deployment", "cart-canary", NAME)
    ]
    assert "! Deployment cart-canary" in text.render(plan)


def with_weight(stream: EventStream, settings: Settings, weight: int) -> dict[str, LiveService]:
    live = state_before(settings, stream.steps)[NAME]
    assert live.split
    assert live.split.canary
    return {NAME: replace(live, split=replace(live.split, canary=replace(live.split.canary, weight=weight)))}


@pytest.mark.parametrize(
    ("weight", "changes", "risk"),
    [
        (100, {}, "weight 100: what is wrong with registry.example/cart:2.0 meets every request"),
        (10, {}, "the canary's weight falls to 10 % ahead of everything else"),
        (0, {}, "weight 0 does not evict clients with header X-Canary: true"),
        (60, {"sessionAffinity": {"cookieName": "stay"}}, "clients with session cookie stay stay where they are"),
        (50, {"canary": {"image": "registry.example/cart:1.0", "replaces": "registry.example/cart:2.0"}}, "same image"),
        (50, {"drainSeconds": 1}, "drainSeconds is 1, but router nginx"),
        (50, {"image": "registry.example/cart:9"}, "stable changes to registry.example/cart:9, which no canary"),
        (
            60,
            {"canary": {"image": "registry.example/cart:3.0", "replaces": "registry.example/cart:2.0"}},
            "50 % of the requests meet registry.example/cart:3.0 at once",
        ),
    ],
)
def test_what_is_risky_is_told(weight: int, changes: Mapping[str, object], risk: str) -> None:
    stream = stream_of("shift")
    assert stream.config
    asked = replace(stream, config={**stream.config, "macromind:canaryWeight": str(weight)})
    settings = settings_of(asked, **changes)
    plan = planned(TARGET, asked, settings, Before(with_weight(stream, settings, 50)), failed=False)

    assert [each for each in plan.services[0].risks if risk in each], plan.services[0].risks
    assert risk in text.render(plan)


def test_a_plain_shift_has_no_risk_to_tell() -> None:
    assert plan_of("shift").services[0].risks == ()


def test_of_pods_that_are_encrypted_it_tells_that_they_change_and_what_runs() -> None:
    (service,) = plan_of("secret", missing=NO_CLUSTER).services

    assert service.stable.image_before == "registry.example/cart:1.0"
    assert service.canary.image_before == "registry.example/cart:2.0"
    assert "stable: pod settings change, which are encrypted" in service.changes
    assert "canary: content of the Secret changes, which is encrypted" in service.changes


def test_no_form_of_a_plan_shows_a_secret_however_it_got_there() -> None:
    stream = stream_of("secret")
    assert stream.config
    services = json.loads(stream.config["macromind:services"])
    services[NAME]["secret"]["data"]["TOKEN"] = "tok-5ecret"  # noqa: S105 - a made-up one
    services[NAME]["env"]["KEY"] = "env-5ecret"
    services[NAME]["canary"]["header"]["value"] = "header-5ecret"
    plain = {**stream.config, "macromind:services": json.dumps(services)}
    secrets = list(encrypted_values(stream.config, plain))
    settings = load({key.removeprefix("macromind:"): value for key, value in plain.items()})
    found = before(stream, settings)
    leaking = replace(found, notes=("the server said env-5ecret",))
    plan = planned(TARGET, stream, settings, leaking, failed=False)

    assert sorted(secrets) == ["env-5ecret", "header-5ecret", "tok-5ecret"]
    assert "header-5ecret" in plan.model_dump_json()
    cleared = without(plan, secrets)
    for rendered in (text.render(cleared), markdown.render(cleared), cleared.model_dump_json()):
        assert "5ecret" not in rendered
        assert SECRET in rendered.replace("\\", "")
    assert Plan.model_validate_json(cleared.model_dump_json()) == cleared


def test_a_secret_that_is_a_word_of_ours_does_not_break_the_plan() -> None:
    plan = plan_of("shift")

    cleared = without(plan, ["shift", "cluster", "true", "ca", "update", "registry.example/cart:2.0"])

    assert (cleared.outcome, cleared.weights_from, cleared.services[0].change) == ("changes", "cluster", "shift")
    assert cleared.services[0].canary.image_after == SECRET
    assert cleared.services[0].always_canary == ("header X-Canary: true",)


def test_a_map_that_is_encrypted_as_a_whole_has_all_of_its_values_hidden() -> None:
    blinded = {"p:a": SECRET, "p:b": json.dumps({"list": [SECRET, "x"]}), "p:c": "open"}
    plain = {"p:a": json.dumps({"k": "one", "n": 5}), "p:b": json.dumps({"list": ["two", "x"]}), "p:c": "open"}

    assert list(encrypted_values(blinded, plain)) == ["one", "5", "two"]


def many(count: int) -> Plan:
    """Return the plan of a shift of so many services, made of the recorded one's events."""
    single = lines("shift")
    own = [line for line in single if "CanaryService" in line]
    renamed = [
        re.sub(r"(?<![/.])\bcart\b", f"{NAME}-{n}", line.replace('"/cart"', f'"/cart-{n}"'))
        for n in range(count)
        for line in own
    ]
    prelude = json.loads(single[0])
    config = prelude["preludeEvent"]["config"]
    service = json.loads(config["macromind:services"])[NAME]
    config["macromind:services"] = json.dumps({f"{NAME}-{n}": service | {"path": f"/cart-{n}"} for n in range(count)})
    stream = read([json.dumps(prelude) + "\n", *renamed])
    settings = load({key.removeprefix("macromind:"): value for key, value in config.items()})
    return planned(TARGET, stream, settings, before(stream, settings, rate=10), failed=False)


def test_thirty_services_have_a_line_each_and_fit_a_comment() -> None:
    plan = many(30)
    comment = markdown.render(plan)

    assert weights(plan) == {f"{NAME}-{n}": (20, 50) for n in range(30)}
    assert text.render(plan).splitlines()[0] == "dev: cart-0, cart-1, cart-2 and 27 others: canary 20 % → 50 %"
    assert comment.count("| shift | 20 % → 50 % | about 3 of 10/s to the canary |") == 30
    assert len(comment.encode()) < markdown.LIMIT / 2
    assert "do not fit" not in comment


def test_a_comment_that_is_too_long_loses_objects_first_and_says_so() -> None:
    plan = plan_of("shift")
    objects = [ObjectPlan(operation="create", kind="Deployment", name=f"d{n}", fields=("x" * 50,)) for n in range(2000)]
    comment = markdown.render(plan.model_copy(update={"objects": tuple(objects)}))

    assert markdown.LIMIT - 1000 < len(comment.encode()) <= markdown.LIMIT
    assert "| cart | shift |" in comment
    assert "What runs where" in comment
    assert "+ Deployment d0`" in comment
    left_out = 2000 - comment.count("+ Deployment d")
    assert (
        comment.splitlines()[-1]
        == f"_{left_out} more lines do not fit into a comment: `canary plan --stack dev` shows all._"
    )
    assert comment.count("<details>") == comment.count("</details>") == 2


def test_a_comment_fits_even_when_findings_alone_are_too_long() -> None:
    finding = PolicyFinding(severity="mandatory", pack="p", rule="r", object="Ingress x", message="→" * 3000)
    plan = plan_of("violated").model_copy(update={"policies": (finding,) * 200, "errors": ("e" * 100_000,)})
    comment = markdown.render(plan)

    assert len(comment.encode()) <= markdown.LIMIT
    assert comment.startswith("<!-- canary-plan:dev -->\n### ")
    assert "more lines do not fit" in comment


def test_a_comment_begins_with_the_marker_by_which_it_is_found() -> None:
    assert markdown.render(plan_of("shift").model_copy(update={"stack": "org/app/prod"})).startswith(
        "<!-- canary-plan:org/app/prod -->\n"
    )


def test_what_others_said_is_no_markup_and_mentions_nobody() -> None:
    comment = markdown.render(plan_of("violated"))

    assert "<b>" not in comment
    assert "@team" not in comment
    assert "&lt;b&gt;" in comment


def test_events_that_are_cut_off_or_only_for_debugging_are_left_out() -> None:
    whole = lines("shift")
    debug = '{"diagnosticEvent":{"prefix":"debug: ","message":"m","color":"never","severity":"debug"}}\n'

    assert read([*whole, whole[1][:40]]) == read(whole)
    assert read([*whole, debug, whole[0][:-1]]) == read(whole)


PROVIDER = "pulumi:providers:kubernetes"


def replaced(*names: str) -> EventStream:
    """Return a recorded stream in which what has one of these names or types is replaced."""
    stream = stream_of("settings")
    steps = [
        replace(step, op="replace", new=step.new or step.old) if {step.name, step.type} & {*names} else step
        for step in stream.steps
    ]
    return replace(stream, steps=tuple(steps))


@pytest.mark.parametrize("missing", ["", NO_CLUSTER])
@pytest.mark.parametrize(
    ("names", "fix"),
    [
        ([PROVIDER, NAME], f"put back what changed of kubernetes:kubeconfig, .* and kubernetes:{IDENTIFIER}"),
        ([NAME], "put back what changed of it$"),
    ],
)
def test_what_is_replaced_under_its_own_name_is_refused_for_it_would_be_deleted(
    names: list[str], fix: str, missing: str
) -> None:
    stream = replaced(*names)
    settings = settings_of(stream)

    plan = planned(TARGET, stream, settings, before(stream, settings, missing=missing), failed=False)

    (refusal,) = plan.refusals
    assert plan.outcome == "refused"
    assert refusal.key == "Deployment cart, Ingress cart, Service cart"
    assert "is the same object" in refusal.allowed
    assert re.match(fix, refusal.fix)
    assert "no traffic moves" not in text.render(plan) + markdown.render(plan)


def test_what_is_replaced_by_another_name_or_stays_when_it_is_let_go_of_is_not_refused() -> None:
    stream = replaced(NAME, "shop")
    settings = settings_of(stream)
    steps = [
        replace(step, retained=True)
        if step.kind == "Namespace"
        else replace(step, new=(step.new or {}) | {"metadata": {"name": "cart-2", "namespace": "shop"}})
        for step in stream.steps
    ]

    plan = planned(TARGET, replace(stream, steps=tuple(steps)), settings, before(stream, settings), failed=False)

    assert plan.refusals == ()


def test_a_replacement_is_told_once() -> None:
    steps = []
    for op in ("create-replacement", "replace", "delete-replaced"):
        event = json.loads(next(line for line in lines("shift") if '"op":"update"' in line))
        event["resourcePreEvent"]["metadata"]["op"] = op
        steps.append(json.dumps(event) + "\n")

    assert [step.op for step in read(steps).steps] == ["replace"]


def test_the_stack_is_named_by_its_events() -> None:
    assert stack_of(stream_of("shift")) == "dev"
    assert stack_of(EventStream()) is None


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDED.glob("*.jsonl") if path.stem != "invalid"))
def test_json_can_be_read_back(recording: str) -> None:
    plan = plan_of(recording, rate=1)

    assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= models(part)
    return found


def test_the_documented_schema_has_every_field() -> None:
    document = (ROOT / "docs/plan.md").read_text(encoding="utf-8")

    missing = [
        f"{model.__name__}.{field.alias}"
        for model in models(Plan)
        for field in model.model_fields.values()
        if f"`{field.alias}`" not in document
    ]

    assert missing == []


@pytest.mark.parametrize(
    ("before_", "after", "said"),
    [(0, 20, "0 % → 20 %"), (20, 20, "20 %"), (20, 0, "20 % → 0 %"), (0, 0, "")],
)
def test_a_mirror_is_told(before_: int, after: int, said: str) -> None:
    stream = stream_of("settings")
    assert stream.config
    raw = {key.removeprefix("macromind:"): value for key, value in stream.config.items()}
    services = json.loads(raw["services"])
    services[NAME] |= {"canary": {"image": services[NAME]["canary"]["image"], "weight": 0, "mirrorPercent": after}}
    keys = {key: value for key, value in raw.items() if key != "ingressClassName"}
    settings = load(keys | {"router": "traefik", "services": json.dumps(services)})
    split = settings.split_of(NAME)
    assert split.canary
    found = state_before(settings_of(stream), stream.steps)
    live = {NAME: replace(found[NAME], split=replace(split, canary=replace(split.canary, mirror=before_)))}

    plan = planned(TARGET, stream, settings, Before(live), failed=False)

    mirror = plan.services[0].mirror
    assert (mirror.before, mirror.after) == (before_, after) if mirror else said == ""
    for rendered in (text.render(plan), markdown.render(plan)):
        assert (f"copies to the canary: {said} of the requests" in rendered) is bool(said)
    if before_ != after:
        assert f"no traffic moves, copies to the canary {said}" in text.render(plan).splitlines()[0]
