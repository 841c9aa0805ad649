"""A cohort in lockstep: every participant's tensors stacked along a first axis, all of them one step at a time.

A participant's step is small: a GPU spends it on starting kernels. Here the model's own code runs once for all participants
(``torch.func.vmap``), and what the stacked form of a layer is known to be faster for has a rule of its own.

* ``lifting.py``: leaves ``vmap`` for a function of stacked tensors.
* ``layers.py``: which function of PyTorch has a rule; ``dense.py``, ``outer.py``, ``convolution.py``, ``normalisation.py``, ``groups.py``, ``pooling.py``, ``chains.py``,
  ``recurrent.py``, ``dropout.py``: the rules.
* ``devices.py``: which kernels compute where; ``kernels/``: Triton.
* ``schedule.py``: who steps when, on which rows; ``progress.py``: what a step reads of that, and what it keeps of its losses.
* ``packing.py``: where tensors lie in one stacked buffer; ``base.py``: what everybody starts from, in which the model itself lies; ``constants.py``: what an algorithm's rule reads beside it; ``update.py``: the optimizer's step on it.
* ``room.py``, ``memory.py``: for how much there is place, and how many participants fit on the device.
* ``step.py``: one step of everybody; ``wave.py``: all steps of as many as memory allows; ``graphs.py``: recorded once, replayed.
* ``proof.py``: two participants in lockstep against one after the other, before the first cohort.
* ``cohorts.py``: the whole, behind one call.
"""
