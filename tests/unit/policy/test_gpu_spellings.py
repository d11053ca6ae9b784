"""The table of Docker spellings in docs/gpus.md: each row means what it says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy import gpus
from policy.gpus import Wish
from policy.model import Reason

ROOT = Path(__file__).parents[3]
SPELLINGS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/corpus/gpus/spellings.yaml").read_text())


@pytest.mark.parametrize("row", SPELLINGS, ids=lambda row: row["spelling"])
def test_each_spelling_means_what_its_row_says(row: dict[str, Any]) -> None:
    """What a client sends is read as the wish of its row, with nothing else in it."""
    wish = gpus.read_wish(row["body"], gpus_default=1)
    if row["wish"] is None:
        assert wish is None
        return
    assert isinstance(wish, Wish)
    expected = {key: tuple(value) if isinstance(value, list) else value for key, value in row["wish"].items()}
    assert asdict(wish) == asdict(Wish()) | expected


def test_the_page_has_these_rows() -> None:
    """docs/gpus.md lists the spellings of the corpus, in their order."""
    table = (ROOT / "docs/gpus.md").read_text().split("|---|---|\n", 1)[1].split("\n\n", 1)[0]
    assert table.splitlines() == [f"| {row['spelling']} | {row['said']} |" for row in SPELLINGS]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        pytest.param({"ds01.gpu.profile": "2g"}, "ds01.gpu.profile", id="no profile"),
        pytest.param({"ds01.gpu.profile": ""}, "ds01.gpu.profile", id="empty"),
        pytest.param({"ds01.gpu.memory": "10GB"}, "ds01.gpu.memory", id="unit that is two sizes"),
        pytest.param({"ds01.gpu.memory": "0GiB"}, "ds01.gpu.memory", id="no memory"),
        pytest.param({"ds01.gpu.profile": "any", "ds01.wait": "ten"}, "ds01.wait", id="no time"),
        pytest.param(
            {"ds01.gpu.profile": "any", "ds01.gpu.time": "0s"}, "ds01.gpu.time", id="no time at all"
        ),
    ],
)
def test_labels_that_cannot_be_read_are_refused(labels: dict[str, Any], named: str) -> None:
    """The reason names the label and says how it is written."""
    reason = gpus.read_wish({"Labels": labels, "HostConfig": {}}, gpus_default=1)
    assert isinstance(reason, Reason)
    assert reason.field == f"Labels.{named}"
    assert reason.next_step.startswith(f"write {named}=")


def test_a_size_beside_names_is_refused() -> None:
    """Devices are asked for by name or by size."""
    body: dict[str, Any] = {
        "Labels": {"ds01.gpu.memory": "1GiB"},
        "HostConfig": {"DeviceRequests": [{"DeviceIDs": ["0"]}]},
    }
    assert isinstance(gpus.read_wish(body, gpus_default=1), Reason)
