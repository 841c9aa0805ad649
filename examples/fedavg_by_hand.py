"""FedAvg over two frameworks, written out to be read; a test equates it with ``xbfl run``.

    python examples/fedavg_by_hand.py

The course does the same in `xbackend_fl.rounds.rounds`, with processes, checkpoints and a folder.
"""

from pathlib import Path

import xbackend_fl as xb
from xbackend_fl.adapter import Batch, TrainConfig
from xbackend_fl.course import example_arrays
from xbackend_fl.data import batches, dirichlet, load_splits, seed_of
from xbackend_fl.locate import call
from xbackend_fl.mapping import training_attributes

DIGITS = Path(__file__).parent / "digits"


def fedavg(course: xb.Course, rounds: int) -> xb.Weights:
    """Global weights after ``rounds`` rounds of the digits course."""
    example = example_arrays(course.input)
    models = {backend: call(spec, course.base) for backend, spec in course.models.items()}
    schema, evidence = xb.describe_reference(models[course.reference], example)
    bound = {backend: xb.bind(model, schema, example, evidence) for backend, model in models.items()}

    train = load_splits(course.data.source, course.base).train
    rule = course.data.partition
    names = [participant.name for participant in course.participants]
    shards = dirichlet(train.targets, names, rule.alpha, rule.min_examples, course.seed)

    weights = bound[course.reference].read()
    for number in range(1, rounds + 1):
        mean = xb.OnlineMean(weights)  # memory of one model, however many participants
        for participant in sorted(course.participants, key=lambda one: one.name):
            name, side = participant.name, bound[participant.backend]
            side.trainer.reset(seed_of(course.seed, "dropout", number, name))
            side.write(weights)
            order = batches(
                len(shards[name]), course.training.batch_size, 1, None, course.seed, "batches", number, name
            )
            config = TrainConfig(
                course.training.optimizer.rule(),
                attributes=training_attributes(schema, side.binding),
                masked=side.binding.masked,
            )
            mine = train.gather(shards[name])
            native = side.binding.native_inputs(mine.inputs)
            side.trainer.train(
                (Batch(tuple(array[i] for array in native), mine.targets[i]) for i in order), config
            )
            mean.add(side.read(), len(mine))
        weights = mean.result()
    return weights


if __name__ == "__main__":
    print(fedavg(xb.load_course(DIGITS / "course.yaml"), rounds=3))
