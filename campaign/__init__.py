"""The papers' comparison tables, trained anew: many runs side by side, in pieces, and what they come to."""
