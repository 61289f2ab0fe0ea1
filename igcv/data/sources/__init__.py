"""Where images come from: one string, such as folder:photos, opens what is to be learned from."""
