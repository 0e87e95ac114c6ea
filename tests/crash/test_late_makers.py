"""A gateway that could not renew its lease, for it or the database was out of reach, and goes on all the same."""

import asyncio

import openai
import pytest

from tests.conftest import MASTER_KEY
from tests.support.chats import answer_of, file_part, text_part
from tests.support.uploads import sha256
from tests.support.world import until

PDF = b"%PDF-1.7 made twice"
# How the sandbox names an account: by its key's digest.
ACCOUNTS = {"gemini": "sandbox-gemini", "bedrock": "sandbox-bedrock"}


@pytest.mark.parametrize(("provider", "model_name"), [("gemini", "gemini-flash"), ("bedrock", "nova-lite")])
async def test_a_replica_that_two_make_is_there_once(world, provider, model_name):
    """The first has it late, while the second makes it; what it made is deleted later still. Files at both bear names
    of ours."""
    sandbox, account = world.sandbox, sha256(ACCOUNTS[provider].encode())[:8]

    async def chat():
        message = {"role": "user", "content": [text_part("Which?"), file_part(file.id)]}
        return await client.chat.completions.create(model=model_name, messages=[message])

    async def called(operation, times):
        """Wait for so many calls more than there were."""

        async def are_there():
            return sandbox.calls(f"{provider}.{operation}") == before.get(f"{provider}.{operation}", 0) + times

        await until(are_there)

    with world.start() as gateway:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY) as client:
            form = {"purpose": "user_data", "extra_body": {"target_model_names": "claude-sonnet"}}
            file = await client.files.create(file=("twice.pdf", PDF), **form)
            for operation in ("upload_file", "upload_file", "delete_file"):
                sandbox.fault(provider, operation, delay_seconds=600, account=account)
            before = sandbox.state()["requests"]
            asked = asyncio.create_task(chat())
            await called("upload_file", 1)
            await world.end_leases()
            await called("upload_file", 2)
            sandbox.release()
            await called("delete_file", 1)
            assert sha256(PDF) in answer_of(await asked)
            sandbox.release()
            await world.come_to_rest()
            await client.files.delete(file.id)
            await world.come_to_rest()
