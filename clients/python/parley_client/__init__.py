"""Talk to a Parley server from Python: see README.md, and ``connect``.

player.py   what is to be played, and what was: no I/O, no clock
call.py     one conversation on a WebSocket
sound.py    where sound comes from and goes to: files, or this machine's microphone and loudspeaker
"""

from parley_client.call import Call, Event, ParleyError, Tool, connect
from parley_client.player import RATE_HZ, Player
from parley_client.sound import Files, Headset

__all__ = ["RATE_HZ", "Call", "Event", "Files", "Headset", "ParleyError", "Player", "Tool", "connect"]
