"""References: every id under `messages` is found and replaced, and not one other byte changes."""

import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.files.references import Found, find, position, rewrite
from app.formats import tool_calls

FILE_IDS = [f"file-mux-{digit * 32}" for digit in "0a7"]
LOOKALIKES = [*FILE_IDS, f"see {FILE_IDS[0]} there", '{"file_id": "file-mux-x"}', '"model": "gpt"', "file_id", "model"]
KEYS = ["file_id", "file", "content", "messages", "model", "metadata", "tools", "arguments", "", "a\\b", 'say "model"']
MODEL = 'provider/"model"'


class Members(tuple):
    """A JSON object as its members in order, so that repeated keys stay."""


def _file_part(extra):
    """OpenAI's file part, with a neighbour."""
    file = st.tuples(st.tuples(st.just("file_id"), st.sampled_from(FILE_IDS)), st.tuples(keys, extra)).map(Members)
    return file.map(lambda value: Members((("type", "file"), ("file", value))))


# No lone surrogates: they are not valid JSON, and the gateway refuses them before it looks for references.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(LOOKALIKES)
keys = st.sampled_from(KEYS) | texts
numbers = st.integers() | st.integers(2**64, 2**80) | st.floats(allow_nan=False, allow_infinity=False)
leaves = texts | numbers | st.none() | st.booleans()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(Members) | _file_part(inner)
    ),
    max_leaves=12,
)


@st.composite
def payloads(draw):
    """A chat payload as some client might write it: JSON bytes."""
    members = draw(st.lists(st.tuples(keys.filter(lambda key: key != "model"), values), max_size=3))
    members.append(("messages", draw(values)))
    members.append(("model", draw(texts)))
    return _written(Members(draw(st.permutations(members))), draw(st.randoms(use_true_random=False)))


def _written(value, random):
    """JSON with odd white space and more escapes than needed."""

    def space():
        return random.choice(["", "", "", " ", "\n\t", "\r\n "])

    def text(string):
        style = random.choice(["plain", "ascii", "escaped"])
        if style == "escaped":
            return '"' + "".join(_escaped(character) for character in string) + '"'
        return json.dumps(string, ensure_ascii=style == "ascii")

    def dump(node):
        if isinstance(node, Members):
            inner = ",".join(f"{space()}{text(key)}{space()}:{space()}{dump(value)}{space()}" for key, value in node)
            return "{" + (inner or space()) + "}"
        if isinstance(node, list):
            return "[" + (",".join(f"{space()}{dump(item)}{space()}" for item in node) or space()) + "]"
        return text(node) if isinstance(node, str) else json.dumps(node)

    return f"{space()}{dump(value)}{space()}".encode()


def _escaped(character):
    return "".join(f"\\u{unit:04x}" for unit in memoryview(character.encode("utf-16-le")).cast("H"))


def _parsed(body):
    return json.loads(body, object_pairs_hook=Members)


def _expected(node, path=(), key=None):
    """Position and text of each id: the string that is the value of a key `file_id` inside `messages`."""
    if isinstance(node, Members):
        for name, value in node:
            yield from _expected(value, (*path, f".{name}"), name)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _expected(item, (*path, f"[{index}]"))
    elif isinstance(node, str) and key == "file_id" and len(path) > 1 and path[0] == ".messages":
        yield "".join(path)[1:], node


def _structurally_rewritten(node, path=()):
    if isinstance(node, Members):
        return Members((name, _structurally_rewritten(value, (*path, name))) for name, value in node)
    if isinstance(node, list):
        return [_structurally_rewritten(item, (*path, None)) for item in node]
    if isinstance(node, str) and path == ("model",):
        return MODEL
    if isinstance(node, str) and len(path) > 1 and path[0] == "messages" and path[-1] == "file_id":
        return _provider_id(node) or node
    return node


def _provider_id(file_id):
    """The provider's id; None for one that is to be kept, and for one that is the provider's already."""
    return f'provider "{file_id}"' if file_id.startswith("file-mux-") and file_id != FILE_IDS[-1] else None


def _between(body, found):
    """What is not a model or an id."""
    spans = sorted([*found.models, *((one.start, one.end) for one in found.references)])
    starts, ends = [0, *(end for _, end in spans)], [*(start for start, _ in spans), len(body)]
    return [body[start:end] for start, end in zip(starts, ends, strict=True)]


IN_AN_ARRAY = b'{"model":"m","messages":[{"file_id":["file-mux-x"]}]}'
ESCAPED_KEY = b'{"mod\\u0065l":"m","messages":[{"file\\u005fid":"file-\\u006dux-x"}]}'
DUPLICATES = b'{"model":"a","model":"b","messages":[{"file_id":"file-mux-x","file_id":"file-mux-y"}]}'


@settings(max_examples=200)
@given(payloads())
@example(IN_AN_ARRAY)
@example(ESCAPED_KEY)
@example(DUPLICATES)
def test_every_id_is_found_with_its_position(body):
    orjson.loads(body)
    found = find(body)
    assert [(position(body, one), one.file_id) for one in found.references] == list(_expected(_parsed(body)))
    assert all(orjson.loads(body[one.start : one.end]) == one.file_id for one in found.references)


@settings(max_examples=200)
@given(payloads())
@example(IN_AN_ARRAY)
@example(ESCAPED_KEY)
@example(DUPLICATES)
@example(b'{"messages":[],"model":["in","an","array"],"model":"m"}')
def test_a_rewrite_changes_models_and_ids_and_nothing_else(body):
    found = find(body)
    rewritten = rewrite(body, found, MODEL, _provider_id)
    assert _parsed(rewritten) == _structurally_rewritten(_parsed(body))
    assert _between(rewritten, find(rewritten)) == _between(body, found)
    assert rewrite(rewritten, find(rewritten), MODEL, _provider_id) == rewritten


@settings(max_examples=200)
@given(payloads())
@example(b'{"metadata":{"x":"model"},"model":"m"}')
@example(b'{"model" :\n"m","messages":[]}')
@example(b'{"model":"with \\"quotes\\"","messages":[]}')
def test_the_short_cut_finds_what_the_full_scan_finds(body):
    # The word file_id in the last member keeps `find` from its short cut, and moves no span.
    head, _, tail = body.rpartition(b"}")
    assert find(body) == find(head + b',"last":"file_id"}' + tail)


# --- whole content parts ----------------------------------------------------------------------------------------

# The one file that does not travel by its id: it stands in file parts only, as the gateway sees to.
CARRIED = f"file-mux-{'c' * 32}"
PART = b'{"type":"text","text":"its very words"}'


def _content_parts(inner):
    """Parts of a message's content; `inner` may be anything, other file ids included."""
    file_ids = st.just(CARRIED) | st.sampled_from(FILE_IDS)
    files = st.tuples(st.tuples(st.just("file_id"), file_ids), st.tuples(keys, inner)).flatmap(st.permutations)
    file_parts = st.tuples(files.map(Members), keys.filter(lambda key: key != "file"), inner).map(
        lambda part: Members((("type", "file"), (part[1], part[2]), ("file", part[0])))
    )
    return file_parts | st.tuples(keys, inner).map(lambda member: Members((("type", "text"), member)))


@st.composite
def chats(draw):
    """A chat as OpenAI's clients shape it, with all the oddities of `payloads`."""
    messages = []
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.lists(_content_parts(values), max_size=4))
        if draw(st.booleans()):
            content.append(Members((("type", "tool_result"), ("content", draw(st.lists(_content_parts(values)))))))
        messages.append(Members((("role", "user"), ("content", content), (draw(texts), draw(values)))))
    chat = Members((("model", draw(texts)), ("messages", messages)))
    return _written(chat, draw(st.randoms(use_true_random=False)))


def _carried(node):
    """The same with each part that holds the carried file replaced."""
    if isinstance(node, Members):
        return Members((name, _carried(value)) for name, value in node)
    if isinstance(node, list):
        return [_parsed(PART) if _holds_carried(item) else _carried(item) for item in node]
    return node


def _holds_carried(node):
    files = [value for name, value in node if name == "file"] if isinstance(node, Members) else []
    return any(("file_id", CARRIED) in file for file in files if isinstance(file, Members))


@settings(max_examples=200)
@given(chats())
def test_a_file_part_is_replaced_as_a_whole_and_nothing_else(body):
    references = Found((), find(body).references)
    rewritten = rewrite(body, references, MODEL, {CARRIED: PART}.get)
    assert _parsed(rewritten) == _carried(_parsed(body))
    end = 0
    for kept in rewritten.split(PART):
        end = body.index(kept, end) + len(kept)


@settings(max_examples=200)
@given(chats())
@example(
    b'{"model":"m","messages":[{"content":[{"file":{"file_id":"%s","file_id":"%s"}}]}]}' % ((CARRIED.encode(),) * 2)
)
def test_ids_and_parts_are_replaced_in_one_go(body):
    """An id inside of a part that is replaced goes with it."""
    replacements = {CARRIED: PART, **{file_id: _provider_id(file_id) for file_id in FILE_IDS}}
    rewritten = rewrite(body, find(body), MODEL, replacements.get)
    assert _parsed(rewritten) == _structurally_rewritten(_carried(_parsed(body)))


# --- tool call ids ----------------------------------------------------------------------------------------------

call_ids = st.text("abc_-019", min_size=1, max_size=12)
laden_ids = st.builds(tool_calls.with_extra, call_ids, st.just("anthropic"), st.dictionaries(texts, texts, min_size=1))


@pytest.mark.parametrize("key", ["id", "tool_call_id"])
@settings(max_examples=100)
@given(st.lists(call_ids | laden_ids, min_size=1, max_size=4), texts)
def test_call_ids_are_unladen_and_nothing_else(key, ids, text):
    elsewhere = {"name": ids[0], "content": [{"type": "text", "text": ids[0]}], "arguments": json.dumps({key: ids[0]})}
    messages = [{**elsewhere, key: one, "tool_calls": [{key: one, "text": text}]} for one in ids]
    body = json.dumps({"model": "m", key: ids[0], "messages": messages, "metadata": {key: ids[0]}}).encode()
    found = find(body)
    own = [tool_calls.without_extra(one) for one in ids]
    unladen = [{**elsewhere, key: one, "tool_calls": [{key: one, "text": text}]} for one in own]
    expected = {"model": MODEL, key: ids[0], "messages": unladen, "metadata": {key: ids[0]}}
    assert json.loads(rewrite(body, found, MODEL, {}.get, unladen=True)) == expected
    assert json.loads(rewrite(body, found, MODEL, {}.get)) == expected | {"messages": messages}
