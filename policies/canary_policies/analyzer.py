"""Hands what the engine has to the rules, and their findings to the engine.

Speaks the engine's analyzer protocol (proto/pulumi/analyzer.proto) itself. Pulumi's own policy SDK decodes every object
once per rule, which at 600 objects and 23 rules costs more than all rules together.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc  # type: ignore[import-untyped] # has no types of its own
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped] # likewise
from google.protobuf.struct_pb2 import Value  # type: ignore[import-untyped] # likewise
from pulumi.runtime.proto import analyzer_pb2 as protocol
from pulumi.runtime.proto.analyzer_pb2_grpc import AnalyzerServicer, add_AnalyzerServicer_to_server
from pulumi.runtime.proto.plugin_pb2 import PluginInfo

from canary_policies.catalog import RULES
from canary_policies.objects import UNKNOWN, Object, objects_of
from canary_policies.rule import Config, ResourceRule, Rule, Severity, StackRule, UnusableOptionError

NAME: Final = "canary-policies"
VERSION: Final = "0.1.0"

# A whole stack comes in one message, for which gRPC's own limit of 4 MiB is too small.
_MESSAGE_BYTES: Final = 400 * 2**20

# How the engine writes what is not a plain value (sdk/go/common/resource/plugin/rpc.go, v3.255.0).
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_UNKNOWN: Final = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)

_LEVELS: Final = {
    Severity.ADVISORY: protocol.ADVISORY,
    Severity.MANDATORY: protocol.MANDATORY,
    Severity.DISABLED: protocol.DISABLED,
}


def _plain(value: Value) -> Any:  # noqa: ANN401 - whatever a property holds
    """Return a property as plain data: a secret as what it hides, UNKNOWN for what is not known."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        if _SIGNATURE not in fields:
            return _plain_map(fields)
        # Neither a manifest nor a configuration has anything else: assets have no place in them.
        return _plain(fields["value"]) if "value" in fields else UNKNOWN
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind is None else _scalar(getattr(value, kind))


def _scalar(value: object) -> Any:  # noqa: ANN401 - whatever a property holds
    if isinstance(value, str):
        return UNKNOWN if value in _UNKNOWN else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | float) else None


def _plain_map(fields: Mapping[str, Value]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in fields.items()}


class Analyzer(AnalyzerServicer):
    """Answers the engine."""

    def __init__(self) -> None:
        self._levels = {rule.name: _LEVELS[rule.severity] for rule in RULES}
        self._configs: dict[str, Config] = {rule.name: rule.configured({}) for rule in RULES}

    def GetAnalyzerInfo(self, request: Empty, context: grpc.ServicerContext) -> protocol.AnalyzerInfo:  # noqa: ARG002, N802 - the protocol's
        """Tell which rules there are, and how they are configured."""
        info = protocol.AnalyzerInfo(name=NAME, version=VERSION, supportsConfig=True)
        for rule in RULES:
            policy = info.policies.add(
                name=rule.name,
                description=rule.why,
                remediation_steps=rule.fix,
                enforcementLevel=_LEVELS[rule.severity],
                policy_type=protocol.POLICY_TYPE_RESOURCE
                if isinstance(rule, ResourceRule)
                else protocol.POLICY_TYPE_STACK,
            )
            policy.configSchema.properties.update({option: dict(schema) for option, schema in rule.options.items()})
        return info

    def GetPluginInfo(self, request: Empty, context: grpc.ServicerContext) -> PluginInfo:  # noqa: ARG002, N802 - the protocol's
        """Tell the pack's version."""
        return PluginInfo(version=VERSION)

    def Configure(self, request: protocol.ConfigureAnalyzerRequest, context: grpc.ServicerContext) -> Empty:  # noqa: N802 - the protocol's
        """Take the configuration, in which the engine has filled in the defaults, or say what is wrong with it."""
        rules = {rule.name: rule for rule in RULES}
        for name, given in request.policyConfig.items():
            if name not in rules and name != "all":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no rule {name}: choose {', '.join(rules)}")
            if name in rules:
                self._levels[name] = given.enforcementLevel
                try:
                    self._configs[name] = rules[name].configured(_plain_map(given.properties.fields))
                    _check_that_it_runs(rules[name], given.enforcementLevel, self._configs[name])
                except ValueError as error:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return Empty()

    def ConfigureStack(  # noqa: N802 - the protocol's
        self,
        request: protocol.AnalyzerStackConfigureRequest,  # noqa: ARG002 - the rules are the same for every stack
        context: grpc.ServicerContext,  # noqa: ARG002 - likewise
    ) -> protocol.AnalyzerStackConfigureResponse:
        """Take note of nothing: the configuration says what differs between stacks."""
        return protocol.AnalyzerStackConfigureResponse()

    def Analyze(self, request: protocol.AnalyzeRequest, context: grpc.ServicerContext) -> protocol.AnalyzeResponse:  # noqa: ARG002, N802 - the protocol's
        """Judge one object before it is made or changed."""
        return self._judged([request], ResourceRule)

    def AnalyzeStack(  # noqa: N802 - the protocol's
        self,
        request: protocol.AnalyzeStackRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - the protocol's
    ) -> protocol.AnalyzeResponse:
        """Judge the objects of the whole stack together."""
        return self._judged(request.resources, StackRule)

    def Remediate(self, request: protocol.AnalyzeRequest, context: grpc.ServicerContext) -> protocol.RemediateResponse:  # noqa: ARG002, N802 - the protocol's
        """Change nothing: a rule that changes objects behind their author's back is none."""
        return protocol.RemediateResponse()

    def _judged(
        self, resources: Iterable[protocol.AnalyzeRequest | protocol.AnalyzerResource], scope: type[Rule]
    ) -> protocol.AnalyzeResponse:
        active = [rule for rule in RULES if isinstance(rule, scope) and self._levels[rule.name] != protocol.DISABLED]
        objects = list(_objects(resources, frozenset().union(*(rule.kinds for rule in active))))
        response = protocol.AnalyzeResponse()
        for rule in active if objects else ():
            for finding in rule.findings(objects, self._configs[rule.name]):
                response.diagnostics.add(
                    policyName=rule.name,
                    policyPackName=NAME,
                    policyPackVersion=VERSION,
                    description=rule.why,
                    message=f"{rule.why}\n{rule.message(finding)}",
                    enforcementLevel=self._levels[rule.name],
                    urn=finding.object.urn,
                )
        return response


def _check_that_it_runs(rule: Rule, level: int, config: Config) -> None:
    """Refuse options of a rule that nobody has switched on: who writes them means it to run."""
    idle = rule.severity is Severity.DISABLED and level == protocol.DISABLED
    if idle and config != rule.configured({}):
        raise UnusableOptionError(f'{rule.name} is disabled: add "enforcementLevel": "mandatory" to its options')


def _objects(
    resources: Iterable[protocol.AnalyzeRequest | protocol.AnalyzerResource], kinds: frozenset[str]
) -> Iterator[Object]:
    for resource in resources:
        # A list has the objects of its items.
        if resource.type.rpartition(":")[2].removesuffix("List") in kinds | {""}:
            yield from objects_of(resource.type, resource.name, _plain_map(resource.properties.fields), resource.urn)


def serve() -> None:
    """Tell the engine the port, and answer it until it ends this process."""
    options = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES) for way in ("receive", "send")]
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=options)
    add_AnalyzerServicer_to_server(Analyzer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.wait_for_termination()
