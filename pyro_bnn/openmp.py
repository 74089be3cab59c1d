"""How long threads spin while they wait for each other; imported before torch loads OpenMP.

GNU OpenMP lets a thread that reached a barrier early spin for milliseconds before it sleeps. As
soon as another process takes one of the cores, the spinning thread holds up the very thread that it
waits for, at every operator, and a gradient can take ten times as long or more. A short spin avoids
that. The library reads the variable once, when torch is imported; what the user has set stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "5000")
