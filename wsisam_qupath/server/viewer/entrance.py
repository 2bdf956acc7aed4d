"""Let in the page that this program opens, without the token in the address that it opens.

Other users of a computer see the arguments of a browser that is started. The code in them counts
once, and the browser uses it at once.
"""

from __future__ import annotations

import hmac
import re
import threading

from ..problems import ProblemError
from ..security import make_token

_ONCE = re.compile(r"once (?P<code>[!-~]+)", re.IGNORECASE)


class OneTimeCode:
    """A code that gives the token once.

    Attributes:
        code: what the first page shows.
    """

    def __init__(self, token: str) -> None:
        self.code = make_token()
        self._token = token
        self._is_used = False
        self._lock = threading.Lock()

    def exchange(self, authorization: str | None) -> str:
        """Give the token for the code.

        Args:
            authorization: the header, ``Once CODE``.

        Raises:
            ProblemError: ``unauthorized``: it is another code, or was used.
        """
        shown = _ONCE.fullmatch(authorization or "")
        with self._lock:
            if shown and not self._is_used and hmac.compare_digest(shown["code"], self.code):
                self._is_used = True
                return self._token
        raise ProblemError(
            "unauthorized",
            "This address was used before. Open the one that the terminal shows.",
            headers={"WWW-Authenticate": 'Bearer realm="wsisam-qupath"'},
        )
