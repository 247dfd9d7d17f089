"""The allocator suite on layers, in both hosted harnesses; and in images, where nothing is sole."""

from __future__ import annotations

import re

import pytest
from compiled import HERE, ROOT, VARIANTS, build, conforms

from unikit.alloc import Allocator, Bump, Firstfit, Guard, Tlsf
from unikit.image import Image
from unikit.testing.alloc import WORDS

SUITE = sorted((ROOT / "unikit/testing").glob("suite_alloc*.c"))
RECORDS = [Guard(Tlsf()), Guard(Firstfit()), Guard(Bump()),
           Guard(Tlsf(), canary=40, quarantine="1K", quarantine_blocks=2)]


def name(record: Allocator) -> str:
    return "-".join([*(part.id for part in record.layers()), *map(str, record.changed())])


@pytest.mark.parametrize("variant", [pytest.param(each, marks=pytest.mark.fast)
                                     if each == "optimised" else each for each in VARIANTS])
@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_conforms(record: Allocator, variant: str) -> None:
    """One source must behave alike under sanitizers and as a release."""
    outer, inner = record.layers()
    program = build([HERE / "main_layers.c", *SUITE, *outer.source_files(),
                     *inner.source_files()], variant=variant, defines={
        "OUTER": outer.symbol(), "INNER": inner.symbol(),
        "INNER_OPTION": (inner.encoded() or [0])[0],
        "FEATURES": sum(WORDS[word] for word in record.features)})
    conforms(program, *outer.encoded())


@pytest.mark.parametrize("record", RECORDS[:2], ids=name)
def test_conforms_in_an_image(record: Allocator) -> None:
    """There the layers stand in composition.c, and calls go through tables."""
    features = sum(WORDS[word] for word in record.features)
    image = Image("suite", sources=[HERE / "image/alloc_layers.c", *SUITE], alloc=record,
                  platforms=["linux"], flags=[f"-DFEATURES={features}"])
    with image.boot("linux", memory="4M") as machine:
        code = machine.wait(30)
        text = machine.console.text
    assert code == 0, text
    counted = re.search(r"(\d+) checks, result 0", text)
    assert counted, text
    assert int(counted[1]) > 50_000
