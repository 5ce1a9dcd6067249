"""Prompt files: what the bank writes, how a run is continued, and the command."""

from __future__ import annotations

import json
import random

import pytest

from prompt_mamba_arch import cli, prompts
from prompt_mamba_arch.data import KINDS, sample_recipe
from prompt_mamba_arch.data.prompt_file import read_prompt_file
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prompts.mentions import fault, mentions
from prompt_mamba_arch.prompts.writers import BankWriter, Brief, Prompts, Said, write_prompts

BRIEFS = [Brief(f"{n:04}", ("noise",), ("noise", "jpeg"), "denoise") for n in range(12)]


def texts_of(path):
    return [text for entry in read_prompt_file(path).values() for text in entry.prompts]


# ---- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_knows_the_banks_words(kind):
    # one in seven: names times frames are hundreds of thousands
    texts = [text for split in ("train", "val", "test") for text in prompts.phrasings(kind, split)][::7]
    found = [fault(text, [kind]) for text in texts]
    others = [text for text, why in zip(texts, found) if why and why.startswith("speaks of")]
    assert len(others) / len(texts) < 0.06, others[:20]
    assert found.count(None) / len(texts) > 0.6, [text for text, why in zip(texts, found) if why][:20]


@pytest.mark.parametrize(
    ("text", "remove", "stays", "said"),
    [
        ("get rid of the grain", ["noise"], [], None),
        ("Denoise this, please", ["noise"], [], None),
        ("remove the mosquito noise", ["jpeg"], [], None),
        ("remove the noise and the rain", ["noise"], [], "speaks of rain"),
        ("remove the noise", ["noise", "haze"], [], "does not name haze"),
        ("make it nicer", ["noise"], [], "does not name noise"),
        ("make it sharp", ["defocus"], ["noise"], None),
        ("make it sharp", ["defocus"], ["motion"], "does not name defocus"),
        ("the focus is off, make it sharp", ["defocus"], ["motion"], None),
        ("remove the blur", ["defocus", "motion"], [], None),
        ("leave it as it is", [], [], None),
        ("hello there", [], [], "does not ask"),
        ("leave the noise alone", [], [], "speaks of noise"),
        ("?!", ["noise"], [], "no words"),
        ("noise " * 60, ["noise"], [], "longer"),
    ],
)
def test_what_is_wrong_with_a_request(text, remove, stays, said):
    found = fault(text, remove, stays)
    assert found is None if said is None else said in found


def test_words_begin_where_words_begin():
    assert mentions("a train in the shoes of a scientist, mistaken") == frozenset()


# ---- the bank's prompts --------------------------------------------------------------------------------------------


def test_a_file_from_the_bank(tmp_path):
    path = tmp_path / "new" / "prompts.jsonl"
    written = write_prompts(path, BRIEFS, BankWriter(), count=3)
    assert written == (12, 0, 0, 0)
    entries = read_prompt_file(path)
    assert list(entries) == [brief.key for brief in BRIEFS]
    for entry in entries.values():
        assert len(entry.prompts) == 3 and entry.task == "denoise"
        assert entry.remove == ("noise",) and entry.present == ("noise", "jpeg")
    said = Said()
    assert all(said.add(text) for text in texts_of(path))
    assert [file.name for file in path.parent.iterdir()] == ["prompts.jsonl"]
    write_prompts(tmp_path / "again.jsonl", BRIEFS, BankWriter(), count=3)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    write_prompts(tmp_path / "other.jsonl", BRIEFS, BankWriter(), count=3, seed=1)
    assert (tmp_path / "other.jsonl").read_bytes() != path.read_bytes()


def test_what_is_known_of_the_image_is_used(tmp_path):
    recipe = next(r for n in range(999) if (r := sample_recipe(n, ("noise", "haze"), 2)))
    brief = Brief("a", ("haze",), ("noise", "haze"), None, recipe, {"noise": 0.9, "haze": 0.9})
    write_prompts(tmp_path / "p.jsonl", [brief], BankWriter(), count=600)
    texts = texts_of(tmp_path / "p.jsonl")
    assert any("but" in text and "noise" in mentions(text) for text in texts)  # it names what stays
    assert any(word in text.lower() for text in texts for word in ("heavy", "thick", "dense"))
    blind = brief._replace(present=None, recipe=None, severity=None)
    write_prompts(tmp_path / "q.jsonl", [blind], BankWriter(), count=200)
    assert not any("noise" in mentions(text) for text in texts_of(tmp_path / "q.jsonl"))


def test_when_the_bank_has_no_more_the_number_is_told(tmp_path):
    briefs = [Brief(str(n), ()) for n in range(40)]
    written = write_prompts(tmp_path / "p.jsonl", briefs, BankWriter("val"), count=20, split="val")
    assert written.repeated > 0
    for entry in read_prompt_file(tmp_path / "p.jsonl").values():  # within an image they differ all the same
        said = Said()
        assert sum(not said.add(text) for text in entry.prompts) <= 2


# ---- runs that ended early -----------------------------------------------------------------------------------------


class _Fails(BankWriter):
    """Ends with an error at its `at`-th image."""

    def __init__(self, at, error):
        super().__init__()
        self.left, self.error = at, error

    def write(self, *args):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(*args)


@pytest.mark.parametrize("error", [UserError("no more"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_the_next_run_goes_on(tmp_path, error):
    write_prompts(tmp_path / "whole.jsonl", BRIEFS, BankWriter())
    path, part = tmp_path / "p.jsonl", tmp_path / "p.jsonl.part"
    with pytest.raises(type(error)) as raised:
        write_prompts(path, BRIEFS, _Fails(5, error))
    assert not path.exists() and len(part.read_bytes().splitlines()) == 6  # and a line with the settings
    if isinstance(error, UserError):
        assert "no more; 5 of 12 images are done" in str(raised.value) and "\n" not in str(raised.value)
    with open(part, "ab") as file:  # as if the process had died within a line
        file.write(b'{"key": "0005", "prompts": ["re')
    lines, steps = [], []
    written = write_prompts(
        path, BRIEFS, BankWriter(), tell=lines.append, progress=lambda done, total: steps.append(done)
    )
    assert written.resumed == 5 and "5 of 12" in lines[0] and steps == list(range(5, 13))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and not part.exists()


def test_a_failure_at_once_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"^no more$"):
        write_prompts(tmp_path / "p.jsonl", BRIEFS, _Fails(0, UserError("no more")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"count": 5}, "count 4"),
        ({}, {"split": "test"}, "split train"),
        ({"remove": ("jpeg",)}, {}, "image '0000'"),
        ({"present": None}, {}, "image '0000'"),
    ],
)
def test_another_task_is_not_continued(tmp_path, change, options, said):
    with pytest.raises(UserError):
        write_prompts(tmp_path / "p.jsonl", BRIEFS, _Fails(2, UserError("no more")))
    before = (tmp_path / "p.jsonl.part").read_bytes()
    with pytest.raises(UserError, match=said):
        write_prompts(tmp_path / "p.jsonl", [b._replace(**change) for b in BRIEFS], BankWriter(), **options)
    assert (tmp_path / "p.jsonl.part").read_bytes() == before


def test_a_damaged_begun_file_is_said(tmp_path):
    with pytest.raises(UserError):
        write_prompts(tmp_path / "p.jsonl", BRIEFS, _Fails(3, UserError("no more")))
    part = tmp_path / "p.jsonl.part"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([lines[0], b"\xff\xfe\n", *lines[1:]]))
    with pytest.raises(UserError, match=r"p\.jsonl\.part, line 2"):
        write_prompts(tmp_path / "p.jsonl", BRIEFS, BankWriter())


def test_images_that_went_and_came(tmp_path):
    with pytest.raises(UserError):
        write_prompts(tmp_path / "p.jsonl", BRIEFS[:6], _Fails(3, UserError("no more")))
    assert write_prompts(tmp_path / "p.jsonl", BRIEFS[1:8], BankWriter()).resumed == 2
    assert list(read_prompt_file(tmp_path / "p.jsonl")) == [brief.key for brief in BRIEFS[1:8]]


def test_what_is_ready_when_another_fails_is_kept(tmp_path):
    class _OneFails:
        parallel = True
        stopped = False

        def write(self, brief, count, said, rng):
            if brief.key == "0001":
                raise UserError("no more")
            return Prompts([f"remove the noise {brief.key} {n}" for n in range(count)])

        def stop(self):
            self.stopped = True

    writer = _OneFails()
    with pytest.raises(UserError, match="no more; "):
        write_prompts(tmp_path / "p.jsonl", BRIEFS, writer, jobs=3)
    kept = [json.loads(line) for line in (tmp_path / "p.jsonl.part").read_text().splitlines()[1:]]
    assert writer.stopped and {line["key"] for line in kept} >= {"0000", "0002"}


def test_prompts_that_differ_in_small_things_are_the_same():
    said = Said(["Remove the noise!"])
    assert not said.add("remove  the NOISE") and not said.add("remove the noise...")
    assert said.add("don't remove the noise") and not said.add("dont remove the noise")


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capfd, paired_folders, tmp_path, monkeypatch):
    """`prompt-mamba prompts` on four images -> (code, stdout, stderr, the file)."""
    for name in ("PROMPT_MAMBA_LLM_URL", "PROMPT_MAMBA_LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, source=paired_folders.lq):
        target = tmp_path / "prompts.jsonl"
        try:
            code = cli.main(["prompts", "-i", str(source), "-o", str(target), *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err, target

    return run


def test_the_command_with_a_folder(run):
    code, out, _, target = run("--task", "denoise", "--present", "jpeg", "noise", "--count", "2", "--split", "test")
    assert code == 0 and "2 prompts for each of 4 images" in out
    entries = read_prompt_file(target)
    assert list(entries) == ["astronaut", "chelsea", "coffee", "rocket"]
    entry = entries["coffee"]
    assert (entry.task, entry.remove, entry.present) == ("denoise", ("noise",), ("noise", "jpeg"))
    code, _, err, _ = run("--remove", "jpeg")
    assert code == 2 and "--overwrite" in err and read_prompt_file(target) == entries
    code, *_ = run("--remove", "--overwrite")
    assert code == 0 and read_prompt_file(target)["coffee"].remove == ()


def test_the_command_with_a_lmdb(run, tmp_path, photos):
    import cv2
    from basicsr.utils.lmdb_util import LmdbMaker

    maker = LmdbMaker(str(tmp_path / "lq.lmdb"), map_size=1 << 26)
    image = photos["coffee"][:32, :32]
    maker.put(cv2.imencode(".png", image)[1].tobytes(), "a/0001", image.shape)
    maker.close()
    code, _, _, target = run("--remove", "rain", "haze", source=tmp_path / "lq.lmdb")
    assert code == 0 and read_prompt_file(target)["a/0001"].remove == ("rain", "haze")


def test_the_command_with_recipes(run, tmp_path):
    recipes = tmp_path / "recipes.jsonl"
    rng = random.Random(0)
    lines = [{"key": key, "recipe": sample_recipe(rng.randrange(99), count=2)} for key in ("astronaut", "chelsea")]
    lines += [{"key": "coffee", "recipe": [{"kind": "noise"}, {"kind": "jpeg"}], "remove": ["jpeg"]}]
    lines += [{"key": "rocket", "recipe": [{"kind": "haze"}], "remove": []}]
    recipes.write_text("\n".join(map(json.dumps, lines)))
    code, _, err, target = run("--recipes", recipes)
    assert code == 0, err
    entries = read_prompt_file(target)
    assert entries["coffee"].remove == ("jpeg",) and entries["coffee"].present == ("noise", "jpeg")
    assert entries["rocket"].remove == () and entries["astronaut"].remove == entries["astronaut"].present
    recipes.write_text("\n".join(map(json.dumps, lines[:3])))
    code, _, err, _ = run("--recipes", recipes, "--overwrite")
    assert code == 2 and "'rocket'" in err and target.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--remove"),
        (("--remove", "niose"), "did you mean 'noise'"),
        (("--remove", "noise", "--present", "jpeg"), "--present"),
        (("--task", "denois"), "did you mean 'denoise'"),
        (("--remove", "noise", "--writer", "llm"), "--model"),
        (("--remove", "noise", "--writer", "llm", "--model", "m"), "--url"),
        (("--remove", "noise", "--writer", "llm", "--model", "m", "--url", "localhost:80"), "http://localhost:8000/v1"),
        (("--remove", "noise", "--model", "m"), "--writer"),
        (("--remove", "noise", "--writer", "transformers", "--model", "/no/such/model"), "/no/such/model"),
        (("--remove", "noise", "--count", "0"), "--count"),
        (("--recipes", "/no/such/file"), "/no/such/file"),
    ],
)
def test_mistakes_are_one_line(run, arguments, said):
    code, out, err, target = run(*arguments)
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and said in err, err
    assert not target.exists() and not target.with_name("prompts.jsonl.part").exists()
