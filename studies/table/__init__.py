"""The papers' comparison tables, trained from scratch: many runs side by side, in pieces, and what they come to."""
