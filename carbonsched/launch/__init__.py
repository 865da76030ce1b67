"""Starting, stopping and finding jobs again: the only part that touches other processes."""
