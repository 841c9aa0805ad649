"""FedAvg over two frameworks, written out to be read; a test equates it with ``xbfl run``.

    python examples/fedavg_by_hand.py

The digits course does the same in `xbackend_fl.rounds.rounds`, with processes, checkpoints and a folder.
"""

import numpy as np
from digits import data, keras_model, torch_model

import xbackend_fl as xb
from xbackend_fl.adapter import OPTIMIZERS, Batch, TrainConfig
from xbackend_fl.data import PARTITIONS, Pool, batches, seed_of

EXAMPLE = (np.zeros((1, 1, 8, 8), np.float32),)
SITES = dict.fromkeys(["amsterdam", "berlin", "cairo"], "torch")
SITES |= dict.fromkeys(["delhi", "edinburgh", "fukuoka"], "tensorflow")
CONFIG = TrainConfig(OPTIMIZERS["momentum"](lr=0.02, momentum=0.9))


def fedavg(rounds: int, seed: int = 7) -> xb.Weights:
    """Global weights after some rounds."""
    torch_side, keras_side = torch_model.build(), keras_model.build()
    schema, evidence = xb.describe_reference(torch_side, EXAMPLE)
    models = {"torch": xb.bind(torch_side, schema, EXAMPLE, evidence)}
    models["tensorflow"] = xb.bind(keras_side, schema, EXAMPLE, evidence)  # proven, or xb.MismatchError
    images, labels = data.load()["train"]
    shards = PARTITIONS["dirichlet"](min_examples=32).shards(Pool(len(labels), labels), list(SITES), seed)
    weights = models["torch"].read()
    for number in range(1, rounds + 1):
        mean = xb.OnlineMean(weights)  # memory of one model, however many participants
        for name, backend in SITES.items():
            rows, model = shards[name], models[backend]
            order = batches(len(rows), 16, 1, None, seed, "batches", number, name)
            steps = (Batch((images[rows[part]],), labels[rows[part]]) for part in order)
            model.write(weights)
            model.train(steps, CONFIG, seed_of(seed, "dropout", number, name))
            mean.add(model.read(), len(rows))
        weights = mean.result()
    return weights


if __name__ == "__main__":
    print(fedavg(rounds=3))
