"""The doctor: what is here, what a device is like, what blocks good numbers, and the command that mends it.

Start with `Finding`. `laptop.py` looks at this machine; `device.py` judges what a device said of itself and is a pure
function of it; `reach.py` goes there and asks; `roll_call.py` asks all devices for a sign of life.
"""

from edgeprune.diagnosis.finding import Finding
from edgeprune.diagnosis.laptop import look_here
from edgeprune.diagnosis.reach import look_there
from edgeprune.diagnosis.roll_call import Answer, call, known, others

__all__ = ["Answer", "Finding", "call", "known", "look_here", "look_there", "others"]
