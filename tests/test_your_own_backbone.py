"""The page "Your own backbone" runs as it stands, and its contract test finds a wrong axis."""

import re

import pytest

from tests.wheel import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "your_own_backbone.md").read_text("utf-8"), re.S)


def test_the_page_runs_as_it_stands(capsys) -> None:
    exec(compile("\n".join(BLOCKS), "your_own_backbone.md", "exec"), {"__name__": "page"})
    assert "fits this backbone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("flatten(2) for f", "flatten(2).flip(0) for f"),  # the faces of the batch in another order
        ("maps.mean((2, 3))", "maps.mean((0, 2, 3)).expand(len(maps), -1) * len(maps)"),  # mixes faces
        ("BTNOutput(vit=own, bt=both, cba=cba)", "BTNOutput(vit=own, bt=cba, cba=both)"),  # names exchanged
    ],
)
def test_the_contract_finds_a_mistake(right: str, wrong: str) -> None:
    code = "\n".join(BLOCKS[:3])
    assert right in code
    with pytest.raises(AssertionError):
        exec(compile(code.replace(right, wrong), "your_own_backbone.md", "exec"), {"__name__": "page"})
