"""A short run of :mod:`tests.weights.mutations`; the long one is a command."""

from __future__ import annotations

import pytest

from tests.weights.mutations import bases, run


@pytest.mark.filterwarnings("ignore")  # the libraries that are compared with warn about what they read
def test_mutations_are_refused_or_read_rightly() -> None:
    found, wrong = run(800, seed=1)
    assert not wrong
    assert found["read"] > 15
    assert sum(found.values()) == 800


def test_every_base_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    from xbackend_fl import weights

    folder = tmp_path_factory.mktemp("bases")
    (folder / "x.data-00000-of-00001").write_bytes(bytes(64))
    for name, content in bases().items():
        (folder / name).write_bytes(content)
        assert len(weights.open_weights(folder / name)) >= 2
