"""A gateway that dies and comes back."""

import signal

import openai

from tests.conftest import MASTER_KEY
from tests.support.batches import ENDPOINT, answer_in, jsonl, line, read_lines
from tests.support.chats import file_part, text_part
from tests.support.uploads import sha256

OPENAI, CLAUDE, GEMINI, NOVA = "gpt-4o-mini-openai", "claude-sonnet", "gemini-flash", "nova-lite"


class Killable:
    """A gateway that can be killed and started again; `client` is the official SDK at the one that runs."""

    def __init__(self, world, gates):
        self.world, self.gates = world, gates
        self.start()

    def start(self):
        self._gateway = self.world.start()
        options = {"api_key": MASTER_KEY, "max_retries": 0, "timeout": 120}
        self.client = openai.AsyncOpenAI(base_url=f"{self._gateway.url}/v1", **options)

    async def kill(self):
        """Kill it and settle what it was about to commit."""
        await self.stop(signal.SIGKILL)
        await self.gates.open()

    async def take_up(self):
        """Start it again when the leases of the killed one have passed."""
        await self.world.end_leases()
        self.start()

    async def stop(self, number=signal.SIGTERM):
        self._gateway.stop(number)
        await self.client.close()

    @property
    def pid(self):
        return self._gateway.process.pid

    @property
    def is_alive(self):
        return self._gateway.process.poll() is None

    # --- what clients do --------------------------------------------------------------------------------------

    async def upload(self, one, targets=(OPENAI, GEMINI)):
        """Upload a crossing's file; repeated, it is the same."""
        file = await self.client.files.create(
            file=(one.filename, one.content),
            purpose="user_data",
            extra_body={"target_model_names": ",".join(targets)},
            extra_headers={"Idempotency-Key": one.filename},
        )
        one.file_id = file.id

    async def chat(self, one):
        """Have its model see the file."""
        parts = [text_part("Which file?"), file_part(one.file_id)]
        message = {"role": "user", "content": parts}
        answer = await self.client.chat.completions.create(model=one.model_name, messages=[message])
        assert sha256(one.content) in answer.choices[0].message.content

    async def read(self, one):
        """Read the file back."""
        assert (await self.client.files.content(one.file_id)).content == one.content

    async def upload_lines(self, one, model_names, words="slow:0"):
        """Upload a line for each model name, which takes no time unless its words say so."""
        lines = [line(name, name, f"{words} {one.filename}") for name in model_names]
        fields = {"target_model_names": ",".join(model_names)}
        file = await self.client.files.create(file=(one.filename, jsonl(lines)), purpose="batch", extra_body=fields)
        one.file_id = file.id

    async def create_batch(self, one):
        """Create a batch of a file's lines; repeated, it is the same."""
        headers = {"Idempotency-Key": one.filename}
        asked = {"input_file_id": one.file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
        return await self.client.batches.create(**asked, extra_headers=headers)

    async def answers(self, one, batch_id):
        """What its models have said in a batch that is completed, by model name."""
        batch = await self.client.batches.retrieve(batch_id)
        assert (batch.status, batch.input_file_id, batch.error_file_id) == ("completed", one.file_id, None)
        output = read_lines((await self.client.files.content(batch.output_file_id)).content)
        return {custom_id: answer_in(found) for custom_id, found in output.items()}

    async def listed(self):
        """The names of all files that exist for callers."""
        return sorted([file.filename async for file in self.client.files.list()])
