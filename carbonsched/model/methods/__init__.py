"""What the training methods can and cannot, and the keys of `[train]` that belong to one of them.

The trainer builds the methods (trainer/methods). What can be said of them without torch stands here, so that a job whose
settings do not go together is refused at submit.

tokens     how much of each row the tokens method trains on
traits     one row per method: what it can and cannot, and which names a job may give
lora       keys of `lora`, `greentrainer+lora` and `lora+tokens`
prefix     keys of `prefix`
learning_rate  keys of the learning rate, and whose it is
selection  keys of the methods that select tensors
efficiency  what a step of each brings against a full one, before a job has shown it
"""
