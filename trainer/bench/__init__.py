"""Benchmarks of the trainer: `python -m trainer bench`. No other package imports this one.

runner      runs methods × rho × seeds, each in a process of its own, and resumes
championship  compares methods at equal grams, from one TOML
grams       works out how many steps a budget pays for
standings   what a championship has come to: a line a row and budget, and comparisons
progress    how far a benchmark is
job_batches  foresees what each step of a job costs
cell        names one run, and reads --method
result      what one run came to, and where runs are kept
table       results as one document and as a Markdown table
plot        plots of results as SVG
statistics  paired bootstrap: are two variants different?
test_set    evaluates a finished run on the test rows
importance  compares the predicted with the actual drop of the held-out loss
select      measures how fast and how good the selection is
waste       counts what a stock Trainer wastes, and shows that nothing changes without
shapes      configurations of well-known models, without weights
meter       measures the joules of one run
"""
