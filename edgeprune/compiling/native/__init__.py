"""The runtime `native`: one static program a network, which needs nothing on the device. Start with `build.py`.

program.py   the planned Relax function as a list of kernel calls on an arena
emit.py      that list as C
"""
