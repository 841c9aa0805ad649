"""A script of several processes: ``python -m tests.federation.ranks FOLDER``, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import xbackend_fl as xb
from tests.federation.test_script import Served, build


def held(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def main(folder: Path, *settings: str) -> None:
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(rank)
    model = build(folder)
    if rank:
        with torch.no_grad():
            model[0].weight.add_(1.0)
    data = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    mine = torch.from_numpy(data[rank::ranks])
    course = xb.load_course(folder / "course.yaml", settings)
    if rank:
        rounds_of = xb.federate(model, course, "osaka")
    else:
        served = Served(course, folder)
        rounds_of = served.script(model)
    seen = []
    with rounds_of as rounds:
        for task in rounds:
            start = held(model)
            parallel = DistributedDataParallel(model)
            optimizer = torch.optim.SGD(parallel.parameters(), lr=task.lr)
            for _ in range(4):
                optimizer.zero_grad()
                ((parallel(mine) - 2 * mine[:, :1]) ** 2).mean().backward()
                optimizer.step()
            seen.append((task.round, task.seed, start, held(model)))
            if "break" in sys.argv:
                break
            rounds.report(32)
    if not rank:
        served.end()
    torch.save(seen, folder / f"rank-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(text for text in sys.argv[2:] if "=" in text))
