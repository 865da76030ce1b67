"""Decides what each job may spend.

allocator  what one job may spend now, and where that comes from
accrual    a budget that grows with time
pools      budgets that several jobs share
division   a pool divided among its jobs by one price
command_budget  pure: holds a command of carbonsched run to its budget
"""
