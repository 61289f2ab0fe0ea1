"""What one command makes of small sets of photos, beside settings chosen by hand and timm's training script."""
