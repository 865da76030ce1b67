"""Supervised fine-tuning with TRL's SFTTrainer; the marked lines are all that carbonsched adds.

TRL recomputes activations and logits in the backward pass by default; that is reported apart from ρ.
"""

from datasets import Dataset
from tiny import arguments, causal, pairs, show
from trl import SFTConfig, SFTTrainer

from trainer import GreenTrainerCallback  # added

args = arguments("SFTTrainer with GreenTrainerCallback")
model, tokenizer = causal(args)
rows = [{"prompt": row["source"], "completion": row["target"]} for row in pairs(args)]

green = GreenTrainerCallback(rho=args.rho)  # added
trainer = SFTTrainer(
    model,
    SFTConfig(
        args.out,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        max_length=256,
        bf16=False,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
    callbacks=[green],  # added
)
trainer.train()
trainer.save_model()
show(green.history)
