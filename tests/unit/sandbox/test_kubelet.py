"""Which address each pod gets."""

import asyncio

import aiohttp
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.models.core_v1 import Container, PodSpec, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod

from sandbox.kubelet import Kubelet


def pod(uid: str, address: str | None = None) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=uid, namespace="default", uid=uid),
        spec=PodSpec(containers=[Container(name="app", image="app:1")]),
        status=PodStatus(podIP=address, phase="Running" if address else "Pending"),
    )


def addresses(*listings: list[Pod]) -> list[dict[str, str]]:
    """Return who has which address after each listing; the pods are gone again before they do anything."""

    async def main() -> list[dict[str, str]]:
        config = KubeConfig.from_one(user=User(), cluster=Cluster(server="http://127.0.0.1:1"))
        async with (
            AsyncClient(config, trust_env=False) as client,
            aiohttp.ClientSession() as session,
            asyncio.TaskGroup() as pods,
        ):
            kubelet = Kubelet(client, session, pods)
            found = []
            for listing in listings:
                kubelet.play({pod.metadata.uid: pod for pod in listing if pod.metadata and pod.metadata.uid})
                found.append(kubelet.addresses)
            kubelet.play({})
            return found

    return asyncio.run(main())


def test_after_a_restart_running_pods_keep_their_addresses_whoever_is_listed_first() -> None:
    (first,) = addresses([pod("first")])
    taken = first["first"]
    (found,) = addresses([pod("new"), pod("running", taken), pod("newer")])
    assert found["running"] == taken
    assert len(set(found.values())) == 3


def test_an_address_comes_back_late_and_only_what_is_listed_is_played() -> None:
    before, after = addresses([pod("gone"), pod("stays")], [pod("stays"), pod("new")])
    assert after.keys() == {"stays", "new"}
    assert after["stays"] == before["stays"]
    assert after["new"] not in before.values()
