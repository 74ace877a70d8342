"""What the API refuses, as v1.Status objects with the real server's reasons and texts."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal: HTTP code, machine reason, message, and the object that it is about."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        """Return the v1.Status object that answers the request."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def _about(group: str, plural: str, name: str) -> dict[str, Any]:
    details = {"name": name, "group": group, "kind": plural}
    return {key: value for key, value in details.items() if value}


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """Return 404 for an object that does not exist."""
    text = f'{_qualified(group, plural)} "{name}" not found'
    return ApiError(404, "NotFound", text, _about(group, plural, name))


def no_resource() -> ApiError:
    """Return 404 for a path that this server does not serve."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """Return 409 for a create under a name that is taken."""
    text = f'{_qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", text, _about(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiError:
    """Return 409 for an update that starts from a stale resourceVersion."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version "
        "and try again"
    )
    text = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", text, _about(group, plural, name))


def invalid(group: str, kind: str, name: str, problems: list[tuple[str, str, str]]) -> ApiError:
    """Return 422 listing every problem as (field, reason, text)."""
    texts = [f"{field}: {text}" for field, _, text in problems]
    shown = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    qualified = f"{kind}.{group}" if group else kind
    details = _about(group, kind, name)
    details["causes"] = [
        {"reason": reason, "message": text, "field": field} for field, reason, text in problems
    ]
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {shown}', details)


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """Return 403 for an authenticated user who may not do this."""
    what = _qualified(group, plural)
    subject = f'{what} "{name}"' if name else what
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _about(group, plural, name))


def unauthorized() -> ApiError:
    """Return 401 for credentials that the server does not know."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> ApiError:
    """Return 400."""
    return ApiError(400, "BadRequest", message)


def expired(wanted: int, oldest: int) -> ApiError:
    """Return 410 for a resourceVersion older than the watch history."""
    return ApiError(410, "Expired", f"too old resource version: {wanted} ({oldest})")


def unsupported_media(accepted: str) -> ApiError:
    """Return 415 naming the media types that would do."""
    text = (
        "the body of the request was in an unknown format - accepted media types include: "
        + accepted
    )
    return ApiError(415, "UnsupportedMediaType", text)


def method_not_allowed() -> ApiError:
    """Return 405."""
    text = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", text)
