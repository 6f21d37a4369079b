"""The implementations of one loss call: torch, native C++ and Triton."""
