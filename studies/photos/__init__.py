"""Study of small photo sets: one igcv command, manual settings, and timm's training script."""
