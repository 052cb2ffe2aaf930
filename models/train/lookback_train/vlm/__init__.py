"""Training of a policy of Qwen3-VL's own shape, from the same records as nano."""


class Refusal(Exception):
    """What was given cannot be used; the message is a sentence for the person who gave it."""
