"""int8: preparation, quantization and comparison with float32."""
