"""The errors that people read: one sentence with what, the value received, what is allowed, what to do."""


class NightshiftError(Exception):
    """Anything Nightshift refuses or fails at, in words meant for a person."""


class InputError(NightshiftError):
    """What was given is wrong, so trying again changes nothing."""


class OutageError(NightshiftError):
    """A service cannot be reached; trying again later may help."""


class PrunedError(NightshiftError):
    """A training was stopped because it is not worth finishing, which is nobody's fault."""


class StageError(NightshiftError):
    """A stage's process ended without a result: killed, crashed or out of time."""
