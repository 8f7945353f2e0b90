"""The venue's error answers, as recorded or documented (section 3 of the venue's page)."""

from __future__ import annotations

import msgspec


class ApiError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        super().__init__(f"{status} {body.decode()}")
        self.status = status
        self.body = body
        self.content_type = content_type


def _error(status: int, error: str, details: str) -> ApiError:
    body = {"error": error, "error_details": details, "message": details}
    return ApiError(status, msgspec.json.encode(body))


def invalid_argument(details: str) -> ApiError:
    return _error(400, "INVALID_ARGUMENT", details)


def not_found(details: str) -> ApiError:
    return _error(404, "NOT_FOUND", details)


def permission_denied() -> ApiError:
    return _error(403, "PERMISSION_DENIED", "Missing required scopes")


def proto(body: bytes, name: str, complaint: str) -> ApiError:
    """What the venue's strict protobuf-JSON reader says; the place is that of the field `name` in the body."""
    before = body.decode(errors="replace").partition(f'"{name}"')[0]
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    return _error(400, "unknown", f"proto: (line {line}:{column}): {complaint}")


def too_many_cancels() -> ApiError:
    message = "Too many orders to cancel, limit is 100"
    return ApiError(400, msgspec.json.encode({"error": "InvalidArgument", "message": message}))


def unauthorized() -> ApiError:
    return ApiError(401, b"Unauthorized\n", "text/plain")


def too_many_requests() -> ApiError:
    body = {"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}
    return ApiError(429, msgspec.json.encode(body))


def internal() -> ApiError:
    """Something broke behind the door; whether before or after the effect, nobody can tell from it."""
    return _error(500, "INTERNAL", "internal server error")


def html_unavailable() -> ApiError:
    """What the CDN in front of the venue answers when the venue does not."""
    page = b"<html><head><title>503 Service Temporarily Unavailable</title></head><body></body></html>"
    return ApiError(503, page, "text/html")
