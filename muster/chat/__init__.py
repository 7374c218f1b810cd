"""The chat: what members of a circle say in records, and the state that follows from it.

Nothing here draws a screen or waits for a network (docs/chat.md): kinds of records, the one rule
that gives every node the same state, the store, and the node that keeps both up to date.
"""
