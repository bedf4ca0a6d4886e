"""Makes dashboard.json, which every stack deploys: `python -m observability.dashboard`.

It is not made at each update: importing the SDK alone takes a tenth of the time that a whole update does.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    VariableRefresh,
)

from canary_service.observability.queries import SERVICE, TRACK
from canary_service.observability.recorded import (
    DECLARED_WEIGHT,
    FAST,
    JUDGED_QUANTILE,
    QUANTILES,
    SERVICE_INFO,
    SLOW,
    cpu,
    measured_share,
    memory,
    pods_of,
    ready_pods,
    track_error_ratio_over,
    track_latency_over,
    track_rate_over,
    wanted_pods,
    weight_changes,
)
from canary_service.routing.split import Track

FILE: Final = Path(__file__).with_name("dashboard.json")

_HERE: Final = 'namespace="$namespace"'
_SERVICE: Final = f'{_HERE},{SERVICE}="$service"'
_BY_TRACK: Final = f"{{{{{TRACK}}}}}"
_DEPLOYMENTS: Final = {Track.STABLE: "$service", Track.CANARY: f"$service-{Track.CANARY}"}
_COLOURS: Final = {Track.STABLE: "blue", Track.CANARY: "orange"}
_PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH: Final = 8
"""Three panels beside one another."""


def content() -> dict[str, Any]:
    """Return the dashboard, without what is a stack's own: title, uid and namespace."""
    built = dashboard.Dashboard("").readonly().refresh("30s").time("now-1h", "now").tags(["canary"])
    built = built.tooltip(DashboardCursorSync.CROSSHAIR).annotation(_shifts())
    for variable in _variables():
        built = built.with_variable(variable)
    built = built.with_row(dashboard.Row("$service").repeat("service").id(1))
    for number, panel in enumerate(_panels(), start=2):
        built = built.with_panel(panel.id(number))
    made: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    for annotation in made["annotations"]["list"]:
        # The builder knows neither the text of a mark nor how close marks may be.
        annotation |= {"titleFormat": f"{{{{{SERVICE}}}}}: another weight", "step": "30s"}
    return made


def _shifts() -> dashboard.AnnotationQuery:
    shifts = weight_changes(f'{_HERE},{SERVICE}=~"$service"')
    marks = dashboard.AnnotationQuery().name("Shifts").datasource(_PROMETHEUS).enable(enable=True)
    return marks.icon_color("purple").expr(shifts)


def _variables() -> Iterator[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield _values_of("namespace", SERVICE_INFO, "Namespace")
    yield _values_of("router", f"{SERVICE_INFO}{{{_HERE}}}", "Router").include_all(include_all=True).multi(multi=True)
    services = _values_of(SERVICE, f'{SERVICE_INFO}{{{_HERE},router=~"$router"}}', "Service", "service")
    yield services.include_all(include_all=True).multi(multi=True)


def _values_of(label: str, series: str, title: str, name: str = "") -> dashboard.QueryVariable:
    query: dict[str, object] = {"query": f"label_values({series}, {label})", "refId": name or label}
    variable = dashboard.QueryVariable(name or label).label(title).datasource(_PROMETHEUS)
    return variable.query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def _panels() -> Iterator[timeseries.Panel]:
    yield _panel("Requests per second", "reqps", {_BY_TRACK: f"{track_rate_over(FAST)}{{{_SERVICE}}}"})
    yield _panel(
        "Canary's share",
        "percent",
        {_declared(Track.CANARY): f"{DECLARED_WEIGHT}{{{_SERVICE}}}", Track.CANARY: measured_share(_SERVICE)},
    )
    yield _panel("Failed requests", "percentunit", {_BY_TRACK: f"{track_error_ratio_over(FAST)}{{{_SERVICE}}}"})
    for quantile in QUANTILES:
        window = FAST if quantile == JUDGED_QUANTILE else SLOW
        latency = f"{track_latency_over(window, quantile)}{{{_SERVICE}}}"
        yield _panel(f"Response time, percentile {100 * quantile:g} over {window}", "s", {_BY_TRACK: latency})
    yield _panel(
        "CPU cores, busiest pod",
        "short",
        {track: f"max({cpu('$namespace', pods_of(name))})" for track, name in _DEPLOYMENTS.items()},
    )
    yield _panel(
        "Memory, largest pod",
        "bytes",
        {track: f"max({memory('$namespace', pods_of(name))})" for track, name in _DEPLOYMENTS.items()},
    )
    ready = {track: ready_pods("$namespace", name) for track, name in _DEPLOYMENTS.items()}
    wanted = {_declared(track): wanted_pods("$namespace", name) for track, name in _DEPLOYMENTS.items()}
    yield _panel("Ready pods", "short", ready | wanted)


def _panel(title: str, unit: str, queries: dict[str, str]) -> timeseries.Panel:
    """Return a panel of these queries by legend."""
    panel = timeseries.Panel().title(title).datasource(_PROMETHEUS).unit(unit).min(0).span(_WIDTH).height(_WIDTH)
    for letter, (legend, query) in zip(ascii_uppercase, queries.items(), strict=False):
        panel = panel.with_target(prometheus.Dataquery().ref_id(letter).expr(query).legend_format(legend).range())
    dashed = DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 8]})
    for track, colour in _COLOURS.items():
        fixed = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        # In the track's colour, so that it does not hide what is as declared.
        panel = panel.override_by_name(track, [fixed])
        if _declared(track) in queries:
            panel = panel.override_by_name(_declared(track), [fixed, dashed])
    return panel


def _declared(track: Track) -> str:
    return f"{track}, declared"


if __name__ == "__main__":
    FILE.write_text(json.dumps(content(), indent=1) + "\n", encoding="utf-8")
