"""A run on an emulated Pi and an emulated phone at once, while faults are done to it: see `__main__`."""
