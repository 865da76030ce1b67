"""The loop around `transformers.Trainer`.

callback          GreenTrainerCallback: the Trainer's hooks
host_trainer      reaches the Trainer itself: its loss, its logs
step_checks       looks at losses and gradients before the optimizer takes a step
waste             what a stock Trainer would have computed
departure         says where realised ρ left the planned one, and why
options           what the callback is given
setup             what a Trainer has made ready, and the batches to come
segment_driver    begins and ends segments: importance, offer, directive, selection
importance_pass   measures importance at the beginning of a segment
adapter_choice    lets a job become one of LoRA before its first step
setting_points    what a segment may be trained in, and what each should gain
upcoming_costs    plans a segment on the shapes of its batches
trainable_model   brings the model in line with each selection
gradient_checkpointing  makes checkpointing go with a selection
optimizer_state   keeps, drops or offloads the optimizer state of frozen tensors
activation_cache  keeps the activations of a frozen prefix and serves them
activation_store  holds those activations in memory or on disk
skippable_blocks  skips the lowest blocks of a model, or reads what leaves them
split_trial       tries out whether rows may run in two parts
step_clock        times the parts of a step
learning_rate  fits the learning rate to how a segment trains
head_trial        tries out whether the output embeddings may run on labelled tokens alone
cache_trial       tries out whether a model's activations can be kept
"""
