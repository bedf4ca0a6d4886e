"""Tells what is wrong with a stack in its cluster, by checks each of which knows one cause and its fix. No I/O."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from canary_service.config.settings import Settings
from canary_service.rollout import route_checks as routes
from canary_service.rollout import split_checks as splits
from canary_service.rollout import workload_checks as workloads
from canary_service.rollout.diagnosis import Case, Diagnosis, Finding, evidence
from canary_service.routing.nginx import Nginx
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Router
from canary_service.workload.facts import KINDS, Facts

About: TypeAlias = Literal["no traffic", "split", "pods"]
"""What somebody sees who has the problem: the canary gets no traffic, traffic is not split as declared, or pods are not
healthy."""


@dataclass(frozen=True, slots=True)
class Check:
    """One cause that is looked for. The docstring of `find` is what it checks.

    `needs` are the kinds without which nothing can be said; Ingress stands for the kinds of the stack's router.
    `of_stack` means once and not for each service, `of_canary` only where a canary is declared, and `routers` are those
    whose objects it knows.
    """

    id: str
    about: About
    find: Callable[[Case], Iterable[Finding]]
    needs: tuple[str, ...]
    of_stack: bool = False
    of_canary: bool = False
    routers: frozenset[str] = frozenset(ROUTERS)

    @property
    def claim(self) -> str:
        """What holds when it is ok, in words that begin small."""
        return (self.find.__doc__ or "").partition("\n")[0].removeprefix("Check that ").rstrip(".")


_NGINX: Final = frozenset({Nginx.name})
_OTHERS: Final = frozenset(ROUTERS) - _NGINX

# Causes before what follows from them: the first problem of a service is where to begin.
CHECKS: Final = (
    Check("namespace", "no traffic", workloads.namespace, (), of_stack=True),
    Check("ingress-class", "no traffic", routes.ingress_class, ("IngressClass",), of_stack=True, routers=_NGINX),
    Check(
        "retired-controller", "no traffic", routes.retired_controller, ("IngressClass",), of_stack=True, routers=_NGINX
    ),
    Check("route-kinds", "no traffic", splits.route_kinds, ("Ingress",), of_stack=True, routers=_OTHERS),
    Check("owner", "split", workloads.owner, ("Service", "Deployment", "Ingress")),
    Check("drift", "split", workloads.drift, ("Service", "Deployment", "Ingress")),
    Check("route-split", "split", splits.route_split, ("Ingress",), routers=_OTHERS),
    Check("former-router", "split", splits.former_router, ("Ingress",)),
    Check("route-accepted", "no traffic", splits.route_accepted, ("Ingress",), routers=_OTHERS),
    Check("ingress", "no traffic", routes.ingress_present, ("Ingress",), routers=_NGINX),
    Check("ingress-class-name", "no traffic", routes.ingress_route_class, ("Ingress",), routers=_NGINX),
    Check("ingress-status", "no traffic", routes.ingress_status, ("Ingress",), routers=_NGINX),
    Check("route-match", "no traffic", routes.route_match, ("Ingress",), routers=_NGINX),
    Check("route-backend", "no traffic", routes.route_backend, ("Ingress", "Service"), routers=_NGINX),
    Check("service", "no traffic", workloads.service_present, ("Service", "Ingress")),
    Check("service-port", "no traffic", workloads.service_port, ("Service", "Deployment", "Ingress")),
    Check("service-selector", "split", workloads.service_selector, ("Service", "Deployment", "Ingress")),
    Check("foreign-pods", "split", workloads.foreign_pods, ("Service", "Deployment", "Ingress", "ReplicaSet", "Pod")),
    Check("one-canary", "split", routes.one_canary, ("Ingress",), routers=_NGINX),
    Check("shared-service", "split", routes.shared_service, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("canary-annotations", "split", routes.canary_annotations, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("weight-total", "split", routes.weight_total, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("undeclared-annotations", "split", routes.undeclared_annotations, ("Ingress",), routers=_NGINX),
    Check("weight", "split", routes.weight, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("kept-clients", "split", routes.kept_clients, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("header-priority", "split", routes.header_priority, ("Ingress",), of_canary=True, routers=_NGINX),
    Check("deployment", "pods", workloads.deployment_present, ("Deployment",)),
    Check("admission", "pods", workloads.admission, ("Deployment", "ReplicaSet")),
    Check("scheduling", "pods", workloads.scheduling, ("Pod",)),
    Check("image-pull", "pods", workloads.image_pull, ("Pod",)),
    Check("container-start", "pods", workloads.container_start, ("Pod",)),
    Check("crashes", "pods", workloads.crashes, ("Pod",)),
    Check("readiness", "pods", workloads.readiness, ("Pod",)),
    Check("rollout", "pods", workloads.rollout, ("Deployment", "ReplicaSet")),
    Check("autoscaling", "pods", workloads.autoscaling, ("HorizontalPodAutoscaler",)),
    Check("disruption", "pods", workloads.disruption, ("PodDisruptionBudget", "Deployment")),
    Check("endpoints", "no traffic", workloads.endpoints, ("Service", "EndpointSlice", "Ingress")),
    Check("share", "split", routes.share, (), of_canary=True),
)


def diagnose(settings: Settings, stack: str, facts: Facts, services: Sequence[str] = ()) -> tuple[Diagnosis, ...]:
    """Return what each check says, in the order of `CHECKS`: causes before what follows from them.

    Args:
        settings: the configuration of the stack.
        stack: its name, as PROJECT/STACK.
        facts: what its cluster shows.
        services: those to look at; all when empty.
    """
    cases = [Case(settings, stack, facts, name) for name in services or settings.services]
    return tuple(each for check in CHECKS for each in _checked(check, cases))


def _checked(check: Check, cases: Sequence[Case]) -> Iterator[Diagnosis]:
    for case in cases[:1] if check.of_stack else cases:
        router = case.settings.router_of_stack()
        if router.name not in check.routers or (check.of_canary and not case.has_canary):
            continue
        service = None if check.of_stack else case.name
        unread = [kind for kind in _needed(check, router) if kind in case.facts.unread]
        findings = [_unknown(case, unread)] if unread else list(check.find(case))
        for found in findings:
            yield Diagnosis(
                check=check.id,
                service=service,
                state=found.state,
                cause=found.cause,
                evidence=found.evidence,
                fix=found.fix,
            )
        if not findings:
            yield Diagnosis(check=check.id, service=service, state="ok")


def _needed(check: Check, router: Router) -> list[str]:
    routes = [kind.kind for kind in router.kinds]
    return [kind for need in check.needs for kind in (routes if need == "Ingress" else [need])]


def _unknown(case: Case, kinds: Sequence[str]) -> Finding:
    named = dict(KINDS)
    for each in case.settings.router_of_stack().kinds:
        named[each.kind] = each.api_version.partition("/")[0], each.plural
    shipped = {"canary-observe" + ("" if kind in KINDS else "-routers"): None for kind in kinds}
    rights = [f"list {resource}" + (f" in {group}" if group else "") for group, resource in (named[k] for k in kinds)]
    return Finding(
        f"the account lacks the right: {', '.join(rights)}",
        tuple(evidence(kind, "", case.facts.unread[kind]) for kind in kinds),
        f"bind it to Role {' and '.join(shipped)} ({'rbac/' if [*shipped] == ['canary-observe'] else 'rbac/routers'}, "
        "docs/rbac.md)",
        "unknown",
    )
