"""The int8 accelerator of `devices/fpga`: its commands, their meaning, its simulator and the lowering of layers to it.

Start with `layers.lower`, which turns one quantised layer into commands, and `simulator.simulate`, which runs commands
on the simulated hardware. `meaning.execute` says in numpy what they have to give.
"""
