"""Summarisation with transformers' Seq2SeqTrainer; the marked lines are all that carbonsched adds."""

from tiny import arguments, pairs, seq2seq, show
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from trainer import GreenTrainerCallback  # added

args = arguments("Seq2SeqTrainer with GreenTrainerCallback")
model, tokenizer = seq2seq(args)
rows = [
    {
        "input_ids": tokenizer(row["source"], truncation=True, max_length=192)["input_ids"],
        "labels": tokenizer(row["target"], truncation=True, max_length=64)["input_ids"],
    }
    for row in pairs(args)
]

green = GreenTrainerCallback(rho=args.rho)  # added
trainer = Seq2SeqTrainer(
    model,
    Seq2SeqTrainingArguments(
        args.out,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        save_strategy="no",
        report_to="none",
        predict_with_generate=True,
    ),
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(tokenizer, model, pad_to_multiple_of=64),
    callbacks=[green],  # added
)
trainer.train()
trainer.save_model()
show(green.history)
