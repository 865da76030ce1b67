"""Names who acts in the ledger's journal, beside people: the daemon and the trainer."""

DAEMON = "daemon"
TRAINER = "trainer"
