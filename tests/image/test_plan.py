"""Plans as people and images see them, and the C that is emitted for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from unikit.component import Option
from unikit.errors import ImageError
from unikit.image import Image, elf, emit, toolchain
from unikit.image.plan import PackedFile
from unikit.image.resolve import Wish, resolve
from unikit.image.runtime import lacking

pytestmark = pytest.mark.fast


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write an application."""
    path = tmp_path / "main.c"
    path.write_text("int init_application(void) { return 0; }\n")
    return path


@pytest.mark.parametrize(("path", "kind"), [
    ("index.html", "text/html; charset=utf-8"), ("a.json", "application/json; charset=utf-8"),
    ("logo.png", "image/png"), ("no-ending", "application/octet-stream")])
def test_text_says_its_charset_and_other_files_do_not(path: str, kind: str) -> None:
    """Browsers guess otherwise."""
    assert PackedFile(path, Path(path), 1).media_type == kind


def test_the_plan_shows_options_files_and_ports(source: Path, tmp_path: Path) -> None:
    """What ``--plan`` prints and the note carries is all there is to know."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.txt").write_text("a")
    plan = resolve(Wish("app", [source], files=tmp_path / "site", forward=["8080:80"],
                        app_options=[Option("port", 80, "where", minimum=1)]))
    assert plan.note()["options"] == {"port": 80}
    assert plan.note()["files"] == 1
    assert plan.note()["forward"] == ["8080:80"]
    text = "\n".join(plan.lines())
    assert "option     app.port=80" in text
    assert "file       a.txt (1 bytes)" in text
    assert "forward    8080:80" in text
    assert "console    the platform's own" in text
    shown = resolve(Wish("app", [source], consoles=["null"])).lines()
    assert any("console.null" in line for line in shown)
    assert not any("the platform's own" in line for line in shown)


def test_names_with_any_letters_are_c_literals() -> None:
    """A file name may hold quotes, backslashes, trigraphs and letters beyond ASCII."""
    assert emit.text('a"b\\c') == r'"a\"b\\c"'
    assert emit.text("what??/") == r'"what\?\?/"'
    assert emit.text("é\n") == r'"\303\251\012"'


def test_packed_files_and_choices_reach_the_emitted_sources(source: Path, tmp_path: Path) -> None:
    """Each file once in both texts; a choice that the boot may change has its words beside it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.txt").write_text("a")
    mode = Option("mode", "fast", "which", kind="choice", choices=("fast", "safe"), when="boot")
    plan = resolve(Wish("app", [source], files=tmp_path / "site", app_options=[mode]))
    composition, data = emit.composition(plan), emit.data(plan)
    assert "extern const char kit_file_0[];" in composition
    assert '{"fast", "safe", NULL}' in composition
    assert data.count("kit_file_0:") == 1
    assert f'.incbin "{tmp_path}/site/a.txt"' in data


@pytest.mark.parametrize(("symbol", "remedy"), [
    ("kit_tcp_read", "net="), ("kit_udp_open", 'net="mini"'), ("kit_mutex_lock", 'sched="coop"'),
    ("kit_timer_start", 'sched="loop"')])
def test_each_call_of_an_application_has_a_remedy(symbol: str, remedy: str) -> None:
    """The linker knows only that a symbol is missing; people are told what to compose."""
    said = lacking(symbol)
    assert said is not None
    assert remedy in said[1]


def test_other_symbols_have_none() -> None:
    """What is not of app.h is the application's own mistake."""
    assert lacking("my_function") is None


@pytest.mark.parametrize("text", [b"", b"not an ELF file"])
def test_sections_of_something_else_are_an_error_and_symbols_none(tmp_path: Path,
                                                                  text: bytes) -> None:
    """``inspect`` says so; a backtrace without names beats none."""
    path = tmp_path / "x"
    path.write_bytes(text)
    with pytest.raises(ImageError, match="cannot read the sections"):
        elf.sections(path)
    assert elf.symbols(path) == []
    assert elf.symbols(tmp_path / "none") == []


def test_symbols_are_a_sequence_read_at_first_use() -> None:
    """Platforms symbolise lazily: counting, indexing and walking agree."""
    symbols = elf.load(Image("hello").build()).symbols
    assert len(symbols) == len(list(symbols)) > 10
    assert symbols[0] == list(symbols)[0]
    assert any(name == "init_application" for _, _, name in symbols)


def test_a_compiler_may_come_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """``CC="gcc -m64"`` as make has it."""
    monkeypatch.setenv("CC", "gcc -m64")
    toolchain.compiler.cache_clear()
    try:
        assert toolchain.compiler()[1:] == ("-m64",)
    finally:
        toolchain.compiler.cache_clear()


def test_a_platform_or_folder_that_is_not_there_is_a_problem(source: Path, tmp_path: Path) -> None:
    """All at once, each with what there is."""
    from unikit.errors import CompositionError
    with pytest.raises(CompositionError) as caught:
        resolve(Wish("app", [source], platforms=["xen"], files=tmp_path / "none",
                     optimise="best", alloc=7, sched=None, consoles=["null"] * 6))  # type: ignore[arg-type]
    said = "\n".join(caught.value.problems)
    for words in ("no image entry for 'xen'", "is not a folder", "allowed: speed, size, debug",
                  "7 is neither a component nor a name", "an image with events needs a scheduler",
                  "6 consoles are asked for; 4 are allowed"):
        assert words in said
    with pytest.raises(CompositionError, match="needs an entry"):
        resolve(Wish("app", [source], platforms=[]))


def test_packed_names_with_control_characters_are_refused(source: Path, tmp_path: Path) -> None:
    """They would end up in headers of answers."""
    from unikit.errors import CompositionError
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a\nb").write_text("a")
    with pytest.raises(CompositionError, match="control character"):
        resolve(Wish("app", [source], files=tmp_path / "site"))
