"""What each command of `python -m trainer` does; the options stand in `trainer.__main__`.

profile  profile, cost and select
run      run and check
bench    bench
"""
