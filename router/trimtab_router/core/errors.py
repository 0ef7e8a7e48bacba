"""Errors that a client sees, in the shape of OpenAI's API: `{"error": {message, type, param, code}}`."""

from typing import Final

import orjson

STATUS: Final = {
    200: b"OK",
    202: b"Accepted",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class ApiError(Exception):
    """A request that is answered with `status`; the message names the field, the value and the fix."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        retry_after_seconds: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow

    def body(self) -> bytes:
        """The JSON document of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return error_body(self.message, kind=kind, param=self.param, code=self.code)


def error_body(message: str, *, kind: str, param: str | None, code: str | int) -> bytes:
    """OpenAI's error document."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def invalid(field: str, value: object, fix: str) -> ApiError:
    """400: `field` has `value`, which is not allowed; `fix` says what is."""
    return ApiError(400, f"{field}: {shown(value)} is not allowed; {fix}", param=field)


def shown(value: object) -> str:
    """A value as JSON, at most 80 characters, so that an error never echoes a whole prompt."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
