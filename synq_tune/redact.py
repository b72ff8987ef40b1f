"""Take credentials out of whatever is shown or stored: URIs, and texts that quote them."""

from __future__ import annotations

import re

# A web address ends its user part before the first slash; a database password may hold a slash.
_WEB_USER = re.compile(r"(\bhttps?://)[^\s/?#]*@", re.IGNORECASE)
_OTHER_USER = re.compile(r"(\b(?!https?:)[a-z][\w+.-]*://)(?!/)\S*@", re.IGNORECASE)
_SECRET = re.compile(
    r"([?&;](?:[\w-]*(?:passw|pwd|secret|token|api_?key|access_?key|credential)[\w-]*"
    r"|key|sig|signature)=)[^&;\s'\"`]*",
    re.IGNORECASE,
)


def redact_uri(text: str) -> str:
    """`text` without the `user:password@` of its URIs, and with `***` for secrets in a query.

    Args:
        text: a URI, or any text that may hold some, such as an error message.
    """
    text = _OTHER_USER.sub(r"\1", _WEB_USER.sub(r"\1", text))
    return _SECRET.sub(r"\1***", text)
