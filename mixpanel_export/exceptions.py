"""The errors of `mixpanel_export.errors`, in a module named as in mixpanel_data.

Nothing in this package raises the four errors that are defined here. They exist for scripts that import them.
"""

from mixpanel_export.errors import (
    AccountExistsError,
    AccountNotFoundError,
    APIError,
    AuthenticationError,
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    DateRangeTooLargeError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
    ServerError,
    TableExistsError,
    TableNotFoundError,
)

__all__ = [
    "APIError",
    "AccountExistsError",
    "AccountNotFoundError",
    "AuthenticationError",
    "ConfigError",
    "DatabaseLockedError",
    "DatabaseNotFoundError",
    "DateRangeTooLargeError",
    "EventNotFoundError",
    "JQLSyntaxError",
    "MixpanelDataError",
    "OAuthError",
    "QueryError",
    "RateLimitError",
    "ServerError",
    "TableExistsError",
    "TableNotFoundError",
    "WorkspaceScopeError",
]


class EventNotFoundError(MixpanelDataError):
    """mixpanel_data's error for an unknown event name."""

    code = "EVENT_NOT_FOUND"

    def __init__(self, event_name: str, similar_events: list[str] | None = None) -> None:
        similar = list(similar_events or ())
        super().__init__(f"there is no event {event_name!r}", event_name=event_name, similar_events=similar)
        self.event_name = event_name
        self.similar_events = similar


class JQLSyntaxError(QueryError):
    """mixpanel_data's error for a JQL script. This package does not run JQL."""

    code = "JQL_SYNTAX_ERROR"


class OAuthError(MixpanelDataError):
    """mixpanel_data's error for OAuth tokens. This package uses service accounts."""

    code = "OAUTH_TOKEN_ERROR"


class WorkspaceScopeError(MixpanelDataError):
    """mixpanel_data's error for Mixpanel's workspaces. An export always covers the whole project."""

    code = "NO_WORKSPACES"
