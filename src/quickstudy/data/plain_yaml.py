"""YAML that others have written: plain values, and no more of them than the text has.

An alias (``*name``) stands for a value again, and nine lines of aliases of aliases for a billion values. We write none.
"""

from typing import Any

import yaml

MOST = 16 << 20
"""Characters of a file. The longest of ours name each group of a dataset."""


class _Plain(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, f"has an alias (*{event.anchor}), and none are read", None)
        return super().compose_node(parent, index)


def read_yaml(text: str | bytes) -> Any:
    """Return what a YAML text says.

    Raises:
        yaml.YAMLError: it is none, is too long or too deep, or has an alias or a value that cannot be.
    """
    if len(text) > MOST:
        raise yaml.YAMLError(f"is longer than {MOST >> 20} MB")
    try:
        return yaml.load(text, _Plain)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a number of a million digits, the 31st of February
        raise yaml.YAMLError(f"has a value that cannot be ({error})") from None
