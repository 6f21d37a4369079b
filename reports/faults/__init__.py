"""The planted faults: what caught each of them, and how soon."""
