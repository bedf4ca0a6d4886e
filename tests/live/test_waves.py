"""`canary run --wave` on real stacks, each with a backend and a namespace of its own, under real traffic."""

import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client

from canary_service.rollout.events import AnyEvent, Finished, Promoted, RunStarted
from canary_service.rollout.journal import journals, read
from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from tests.live.releases import Release, Run, Stage
from tests.live.scene import STABLE_IMAGE

ROLLOUT = {"steps": [50, 100], "stepSeconds": 10}


@contextmanager
def fleet(stages: Sequence[Stage], **canaries: dict[str, Any]) -> Iterator[list[Release]]:
    """Deploy a stack at each stage; `canaries` are settings of some, by the name of their folder."""
    with ExitStack() as stack, ThreadPoolExecutor() as executor:

        def deployed(stage: Stage) -> Release:
            name = stage.folder.name
            return stack.enter_context(Release.of(stage, canary=canaries.get(name), rollout=ROLLOUT))

        releases = list(executor.map(deployed, stages))
        for release in releases:
            # As in a real fleet: where a stack is kept is the project's to say.
            project = release.scene.stack.folder / "Pulumi.yaml"
            content = yaml.safe_load(project.read_text())
            content["backend"] = {"url": release.scene.stack.environment["PULUMI_BACKEND_URL"]}
            project.write_text(yaml.safe_dump(content))
        yield releases


@contextmanager
def released(folder: Path, sandbox: Sandbox, *waves: str, options: Sequence[str] = ()) -> Iterator[Run]:
    """Run it from the folder above those of the stacks; what has not ended when this is left is killed."""
    named = [",".join(f"{name}/project:dev" for name in wave.split(",")) for wave in waves]
    log = folder / f"waves-{len(list(folder.glob('waves-*')))}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                *(str(CHECKOUT / "canary_service" / "cli" / "canary"), "run", "--yes", "--json", *options),
                *(part for name in named for part in ("--wave", name)),
            ],
            cwd=folder,
            env={key: value for key, value in sandbox.environment.items() if key != "PULUMI_BACKEND_URL"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    run = Run(process, log)
    try:
        yield run
    finally:
        run.kill(with_engine=True)


def told(release: Release) -> list[AnyEvent]:
    return [event for path in journals(release.scene.stack.folder, "dev") for event in read(path)]


def moments(release: Release, kind: type[AnyEvent]) -> list[float]:
    return [event.at for event in told(release) if isinstance(event, kind)]


@pytest.fixture
def stages(sandbox: Sandbox, cluster: Client, tmp_path: Path) -> list[Stage]:
    return [Stage(sandbox, cluster, tmp_path / name) for name in ("dev", "eu", "us")]


def test_good_canaries_are_promoted_wave_after_wave_and_no_request_fails(
    stages: list[Stage], sandbox: Sandbox, tmp_path: Path
) -> None:
    with fleet(stages) as releases, released(tmp_path, sandbox, "dev", "eu,us") as run:
        assert run.exit_code() == 0, run.told
        assert all(release.is_promoted() for release in releases), run.told
        dev, *wave = releases
        begun = min(min(moments(release, RunStarted)) for release in wave)
        assert moments(dev, Promoted) < [begun], "a wave begins when the one before is promoted"
        # The first run of each is over when it has passed its last step.
        passed = max(min(moments(release, Finished)) for release in wave)
        assert all(moments(release, Promoted) > [passed] for release in wave), "none is promoted before all have passed"
        assert [release.failures for release in releases] == [{}, {}, {}]

        with released(tmp_path, sandbox, "dev", "eu,us") as again:
            assert again.exit_code() == 0, again.told
        assert all(release.is_promoted() for release in releases)


def test_one_that_fails_takes_its_wave_back_and_later_waves_do_not_begin(
    stages: list[Stage], sandbox: Sandbox, tmp_path: Path
) -> None:
    ailing = {"env": {"SANDBOX_ERROR_RATE": "0.5"}}
    with fleet(stages, eu=ailing) as releases, released(tmp_path, sandbox, "eu,us", "dev") as run:
        assert run.exit_code() == 2, run.told
        later, failing, healthy = releases
        for release in (failing, healthy):
            assert (release.scene.weight(), release.declared_weight()) == (0, 0), run.told
            assert release.stable_image() == STABLE_IMAGE
        assert healthy.failures == {}
        last = told(healthy)[-1]
        assert isinstance(last, Finished)
        assert last.outcome == "rolled-back"
        assert "wave" in last.text
        assert told(later) == []
        assert "Not begun: dev/project:dev" in run.told

        with released(tmp_path, sandbox, "eu,us", options=["--parallel", "1"]) as again:
            assert again.exit_code() == 1, "neither the bad canary nor the others are tried again unasked"
        assert healthy.scene.weight() == 0
