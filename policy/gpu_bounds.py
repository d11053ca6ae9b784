"""The largest numbers about GPUs that a policy may give, which are those that the allocator takes.

One place for both, so that a policy is refused when it is read and not at somebody's create.
"""

from __future__ import annotations

from typing import Final

MOST_DEVICES: Final = 1024
MOST_RESERVATIONS: Final = 1000
MOST_WAIT_SECONDS: Final = 24 * 3600
MOST_LEAD_SECONDS: Final = 7 * 86400
MOST_SECONDS: Final = 10 * 366 * 86400  # of a lease
LONGEST_TEXT: Final = 128
