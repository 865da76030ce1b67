"""Causal language modelling with transformers' own Trainer; the marked lines are all that carbonsched adds.

Alone it trains at a constant ρ. Started by the daemon (or with $CARBONSCHED_JOB_DIR set) each segment waits for its ρ.
"""

from tiny import arguments, causal, pairs, show
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from trainer import GreenTrainerCallback  # added

args = arguments("Trainer with GreenTrainerCallback")
model, tokenizer = causal(args)
texts = [f"{row['source']}\n{row['target']}" for row in pairs(args)]
rows = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=256)["input_ids"]]

green = GreenTrainerCallback(rho=args.rho)  # added
trainer = Trainer(
    model,
    TrainingArguments(
        args.out,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=rows,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=32),
    callbacks=[green],  # added
)
trainer.train()
trainer.save_model()
show(green.history)
