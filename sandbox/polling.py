"""Waiting for a program that is starting."""

import asyncio
import ssl

import aiohttp

POLL_SECONDS = 0.05


async def answered(url: str, tls: ssl.SSLContext | None = None) -> None:
    """Return once a GET of the URL is answered with success."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url, ssl=tls or True) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_SECONDS)
