"""References: every id under `messages` is found and replaced, and not one other byte changes."""

import json

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.files.references import find, position, rewrite

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


@settings(max_examples=200, deadline=None)
@given(payloads())
@example(IN_AN_ARRAY)
@example(ESCAPED_KEY)
@example(DUPLICATES)
def test_every_id_is_found_with_its_position(body):
    orjson.loads(body)
    found = find(body)
    assert [(position(body, one), one.file_id) for one in found.references] == list(_expected(_parsed(body)))
    assert all(orjson.loads(body[one.start : one.end]) == one.file_id for one in found.references)


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=200, deadline=None)
@given(payloads())
@example(b'{"metadata":{"x":"model"},"model":"m"}')
@example(b'{"model" :\n"m","messages":[]}')
@example(b'{"model":"with \\"quotes\\"","messages":[]}')
def test_the_short_cut_finds_what_the_full_scan_finds(body):
    # The word file_id in the last member keeps `find` from its short cut, and moves no span.
    head, _, tail = body.rpartition(b"}")
    assert find(body) == find(head + b',"last":"file_id"}' + tail)
