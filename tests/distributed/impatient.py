"""`saelab`, but a rank counts as lost after 4 seconds of silence, and is given 1 to end."""

import inspect

from saelab.cli import main
from saelab.ranks import joining, watch

parameters = inspect.signature(joining.joined).parameters
assert parameters["silence_s"].default == 60.0
joining.joined.__wrapped__.__defaults__ = (4.0,)  # type: ignore[attr-defined]
watch._GRACE_S = 1.0
main()
