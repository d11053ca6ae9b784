"""Which images a Dockerfile reads, in every spelling the classic builder takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.dockerapi.dockerfile import (
    MAX_CHARACTERS,
    Bases,
    Stage,
    UnreadableDockerfile,
    bases,
    check_triggers,
    pinned,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

X = "bob/secret:1"


def read(text: str, arguments: Mapping[str, str | None] | None = None) -> Bases:
    return bases(text, arguments=arguments or {})


def images(text: str, arguments: Mapping[str, str | None] | None = None) -> tuple[str, ...]:
    return tuple(stage.image for stage in read(text, arguments).stages)


@pytest.mark.parametrize(
    "text",
    [
        f"FROM {X}", f"from {X} AS x", f"\ufeffFROM {X}", f"  FROM\t{X}\r\n", f"# c\n\nFROM {X}", f"FROM --platform=linux/amd64 {X}",
        f"FR\\\nOM {X}", f"FROM \\\n\n# c\n  # d\n{X}", f"FROM \\ \t\n{X}", f"# escape=`\nFROM `\n{X}", f"#  Escape = `\nFR`\r\nOM {X}",
        f"ARG A={X}\nFROM $A", f"ARG A={X}\nFROM ${{A}}", f'ARG A="{X}"\nFROM "$A"', "ARG A=bob\nARG B=$A/secret\nFROM ${B}:1",
        f"ARG A\nFROM ${{A:-{X}}}", f"ARG A=\nFROM ${{A:-{X}}}", f"ARG A=1\nFROM ${{A:+{X}}}", f"FROM ${{A-{X}}}", "ARG A=1\nFROM bob/secret:$A",
        f"FROM\u00a0{X}",
    ],
)  # fmt: skip
def test_a_base_is_found(text: str) -> None:
    """Case, white space, continuation, comments, directives, variables."""
    assert X in images(text)


@pytest.mark.parametrize(
    "text",
    [
        f"FROM a\nCOPY --from={X} /a /b", f"FROM a\ncopy --chown=1 --from={X} /a /b", f"FROM a\nADD --from={X} /a /b",
        f"FROM a\nCOPY \\\n# c\n --from={X} /a /b", f"FROM a\nCOPY --chown=1\u00a0--from={X} /a /b",
    ],
)  # fmt: skip
def test_a_copied_image_is_found(text: str) -> None:
    """Whatever stands before the flag."""
    assert X in read(text).copied


def test_stages_are_no_images() -> None:
    """By name, in any case, and by number; but only those that came before."""
    found = read(
        "FROM a AS One\nFROM one AS two\nFROM TWO\nCOPY --from=ONE x x\nCOPY --from=1 x x\nCOPY --from=three x x"
    )
    assert (found.named, found.copied) == (("a", "three"), ("three",))
    assert images("FROM one\nFROM b AS one") == ("one", "b")
    assert read("FROM scratch\nCOPY --from=0 x x") == Bases()


def test_build_arguments_count_over_defaults() -> None:
    """Those declared before the first FROM, and no others."""
    assert images("ARG A=a\nFROM $A", {"A": X}) == (X,)
    assert images("ARG A=a\nFROM $A", {"A": None}) == ("a",)
    assert images("FROM a\nARG A=b\nFROM x$A", {"A": X}) == ("a", "x")
    assert images("ARG A=a\nARG A\nFROM b$A") == ("b",)


@pytest.mark.parametrize(
    "text",
    [
        "FROM bob\\/secret", 'FROM bob"/"secret', "FROM $$A", "FROM ${A:?x}", "FROM ${A:-${B}}", "ARG A=b\\ob\nFROM $A",
        "ARG A='x'\nFROM $A", 'FROM --platform="a b c" bob/secret', "FROM a\nCOPY --from=$A x y", "FROM a\nCOPY --fr\\om=b x y", 'FROM a\nCOPY --from="bob" x y',
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_refused(text: str) -> None:
    """Not guessed, not passed on."""
    with pytest.raises(UnreadableDockerfile, match="write its name out"):
        read(text)


def test_a_huge_dockerfile_is_refused() -> None:
    """Reading it would hold up everybody."""
    with pytest.raises(UnreadableDockerfile):
        read("#" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "text",
    [f"FROM a\nRUN x \\\nFROM {X}", f"FROM a\nRUN x `\nCOPY --from={X} a b", f"FROM a\nRUN x \\\\\nFROM {X}",
     f"FROM a\nRUN x \\\n  # y\nFROM {X}"],
)  # fmt: skip
def test_other_readings_are_suspected(text: str) -> None:
    """An engine that ends the line where this one does not would read the image; it counts if it is there."""
    found = read(text)
    assert X in (*found.suspected, *found.named)


def test_scripts_name_no_base() -> None:
    """Python and SQL in a RUN line are not refused, and nothing is pulled for them."""
    found = read('FROM a\nRUN python -c "\\\nfrom ${x} import y \\\n" && psql -c "\\\nfrom `t`"')
    assert (found.named, found.copied) == (("a",), ())


@pytest.mark.parametrize(
    "text", [f"FROM a AS b\nONBUILD COPY --from={X} x x\nFROM b", f"FROM a AS b\nONBU\u0130LD copy --from={X} x x\nFROM B AS c"]
)  # fmt: skip
def test_a_trigger_of_a_stage_counts_where_it_is_built_on(text: str) -> None:
    """It copies from stages that stand before, and from no image."""
    with pytest.raises(UnreadableDockerfile, match="ONBUILD"):
        read(text)


def test_a_trigger_for_others_is_theirs() -> None:
    """Whoever builds on it has the stages it names."""
    assert read("FROM a\nONBUILD COPY --from=builder x x").named == ("a",)
    assert read("FROM a AS one\nFROM b AS two\nONBUILD COPY --from=one x x\nFROM two").named == ("a", "b")


def test_triggers_of_a_base_copy_from_stages_only() -> None:
    """ONBUILD lines as an image's configuration holds them."""
    stage = Stage(image="base", before=frozenset({"builder"}))
    check_triggers(stage, ["COPY --from=builder /a /b", "RUN true", "ADD x y"])
    with pytest.raises(UnreadableDockerfile, match="base"):
        check_triggers(stage, [f"COPY --from={X} /a /b"])


PINS = {"a:1": "sha256:1", X: "sha256:2"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("FROM a:1\nRUN x", "FROM sha256:1\nRUN x"),
        (
            "# escape=`\nFROM --platform=x `\n a:1 AS b\nRUN `\n y",
            "# escape=`\nFROM --platform=x sha256:1 AS b\nRUN `\n y",
        ),
        ("ARG V=1\nFROM a:$V as b\r\nCOPY a:1 /\r\n", "ARG V=1\nFROM sha256:1 as b\nCOPY a:1 /\r\n"),
        (
            f"FROM c\nCOPY --chown=1 \\\n --from={X} x \\\n y\n",
            "FROM c\nCOPY --chown=1  --from=sha256:2 x  y\n",
        ),
        ("FROM c\nRUN echo FROM a:1\n", "FROM c\nRUN echo FROM a:1\n"),
        ("FROM c AS a\nCOPY --from=a x x", "FROM c AS a\nCOPY --from=a x x"),
    ],
)
def test_names_are_pinned_and_all_else_stays(text: str, written: str) -> None:
    """Line by line as it was, directives first."""
    assert pinned(text, PINS, arguments={}) == written


@given(st.text(alphabet="FROMfromCOPYAS -=$\\`\n#\r\t{}\"'abAR/:.1\u00a0", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else comes out, and what is named is a plain reference."""
    try:
        found = read(text)
    except UnreadableDockerfile:
        return
    for name in (*found.named, *found.suspected):
        assert not set(name) & set("$\\`\"' \n\t")


@given(
    st.sampled_from(["", "a", "x y"]),
    st.lists(st.sampled_from(["# c\n", "\n", " \n", "RUN b \\\n c\n"]), max_size=5),
)
def test_noise_before_it_hides_no_base(tail: str, noise: list[str]) -> None:
    """Comments, blank lines and other instructions change nothing."""
    assert X in images("FROM a\n" + "".join(noise) + f"FROM {X}\nRUN {tail}")


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nADD http://127.0.0.1/x /x\n",
        "FROM a\nadd \\\n  http://127.0.0.1/x /x\n",
        "FROM a\nADD \\\n# a comment\n http://127.0.0.1/x /x\n",
        "FROM a\nRUN x \\\nADD http://127.0.0.1/x /x\n",
        "FROM a AS one\nONBUILD ADD http://127.0.0.1/x /x\nFROM one\n",
    ],
)
def test_what_is_fetched_is_found(text: str) -> None:
    """In any reading."""
    assert bases(text, arguments={}).fetched == ("http://127.0.0.1/x",)


def test_an_added_word_that_may_be_an_address_is_refused() -> None:
    """But not in a reading that the engine does not take: `add` is a word of many programs."""
    with pytest.raises(UnreadableDockerfile, match="use COPY"):
        bases("FROM a\nADD $X /x\n", arguments={})
    assert bases("FROM a\nRUN apk \\\n  add $PACKAGES x\n", arguments={}).fetched == ()


def test_triggers_of_a_base_tell_what_they_fetch() -> None:
    """It is judged like the Dockerfile's own."""
    assert check_triggers(Stage(image="a"), ["ADD http://127.0.0.1/x /x"]) == ("http://127.0.0.1/x",)
