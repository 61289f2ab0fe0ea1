"""int8: preparation, quantization, and the comparison with float32."""
