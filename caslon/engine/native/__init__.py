"""A step of the engine in compiled code, for processors that multiply bfloat16 sixteen times two numbers at once (AVX-512)."""
