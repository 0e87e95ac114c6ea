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

    async def second_one_makes():
        return sandbox.calls(f"{provider}.upload_file") == calls + 2

    async def first_one_makes():
        return sandbox.calls(f"{provider}.upload_file") == calls + 1

    with world.start() as gateway:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY) as client:
            form = {"purpose": "user_data", "extra_body": {"target_model_names": "claude-sonnet"}}
            file = await client.files.create(file=("twice.pdf", PDF), **form)
            for operation, seconds in (("upload_file", 2), ("upload_file", 1.5), ("delete_file", 2.5)):
                sandbox.fault(provider, operation, delay_seconds=seconds, account=account)
            calls = sandbox.calls(f"{provider}.upload_file")
            asked = asyncio.create_task(chat())
            await until(first_one_makes)
            await world.end_leases()
            await until(second_one_makes)
            await world.come_to_rest()
            assert sha256(PDF) in answer_of(await asked)
            await client.files.delete(file.id)
            await world.come_to_rest()
