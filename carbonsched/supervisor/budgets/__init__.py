"""Decides what each job may spend.

accrual    a budget that grows with time
pools      budgets that several jobs share
allocator  what one job may spend now, and where that comes from
"""
