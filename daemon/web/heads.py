"""What the head of a request may look like: read in one way only, or refused.

Rule: whatever two servers in a row could read differently is refused here, however harmless it looks (RFC 9112, 11.2:
request smuggling). Pure: bytes in, a start line and headers out, or the status that answers them.
"""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders, RequestStartLine

from daemon.access.identity import PATH_KEY

END = b"\r\n\r\n"
MAX_HEAD = 32 * 1024  # bytes, the request line and the empty line included
MAX_HEADERS = 100

_TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_LINE = rb"(?:\r\n)?" + _TCHAR + rb"++ [\x21-\x7e]++ HTTP/1\.[01]\r\n"  # one empty line before it (RFC 9112, 2.2)
_FIELD = _TCHAR + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n"
_HEAD = re.compile(_LINE + rb"(?:" + _FIELD + rb")*+\r\n")
_FIRST_LINE = re.compile(_LINE)
_OTHER_VERSION = re.compile(rb"[^\r\n]*+ HTTP/\d[^\r\n]*+\r\n")
_HOST = re.compile(r"[0-9A-Za-z._~!$&'()*+;=:%\[\]-]*+")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,18}")


class Refused(Exception):
    """A request that is answered with `status`, and its connection closed: nobody knows where the next one begins."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def parse(head: bytes) -> tuple[str, HTTPHeaders]:
    """The request line and the headers of a head that ends with its empty line; Refused where it is not one."""
    if len(head) > MAX_HEAD:
        raise Refused(431, f"more than {MAX_HEAD:,} bytes of headers")
    if _HEAD.fullmatch(head) is None:
        raise Refused(*_why_not(head))
    lines = head.decode("latin-1").split("\r\n")
    first = 1 if not lines[0] else 0
    if len(lines) - first > MAX_HEADERS + 3:
        raise Refused(431, f"more than {MAX_HEADERS} header lines")
    headers = HTTPHeaders()
    for line in lines[first + 1 : -2]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        if name in headers:
            headers.add(name, value)
        else:
            headers[name] = value  # what `add` would look at once more, `_HEAD` has seen
    return lines[first], headers


def check(start_line: RequestStartLine, headers: HTTPHeaders) -> int | None:
    """The length that the request announces, None for chunks; Refused where the head leaves a doubt."""
    lengths = headers.get_list("Content-Length")
    if len(lengths) > 1:
        raise Refused(400, "more than one Content-Length")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        raise Refused(400, "the Content-Length is not a plain number")
    chunked = "Transfer-Encoding" in headers
    if chunked:
        if start_line.version == "HTTP/1.0":
            raise Refused(400, "Transfer-Encoding has no meaning in HTTP/1.0")
        if lengths:
            raise Refused(400, "both Content-Length and Transfer-Encoding")
        if headers["Transfer-Encoding"].lower() != "chunked":
            raise Refused(400, "a Transfer-Encoding other than chunked")
    if len(headers.get_list("Authorization")) > 1:
        raise Refused(400, "more than one Authorization header")
    if len(headers.get_list("Host")) > 1 or (start_line.version == "HTTP/1.1" and "Host" not in headers):
        raise Refused(400, "exactly one Host header is needed")
    if _HOST.fullmatch(headers.get("Host", "")) is None:
        raise Refused(400, "the Host header is not a host")
    if not start_line.path.startswith("/") and not (start_line.path == "*" and start_line.method == "OPTIONS"):
        raise Refused(400, "the request target must be a path")
    if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
        raise Refused(415, "a compressed request body is not accepted; send it plain")
    return None if chunked else int(lengths[0]) if lengths else 0


def take_key(start_line: RequestStartLine, headers: HTTPHeaders) -> RequestStartLine:
    """The request line without the key before its path: `/k/KEY/api/chat` as `/api/chat`.

    The key is put among the headers, under a name that is no header's: so nothing behind this sees it in a path, or
    could log it there, and no client can put one in its place.
    """
    key, _, path = start_line.path.removeprefix("/k/").partition("/")
    headers[PATH_KEY] = key
    return start_line._replace(path=f"/{path}")


def _why_not(head: bytes) -> tuple[int, str]:
    """Status and words for a head that is not one."""
    if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n"):
        return 400, "a line of the head does not end with CR LF"
    if _FIRST_LINE.match(head) is None:
        if _OTHER_VERSION.match(head) is not None:
            return 505, "this gateway speaks HTTP/1.1"
        return 400, "the request line is malformed"
    return 400, "a header line is malformed"
