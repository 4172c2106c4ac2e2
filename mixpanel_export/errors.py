"""Every way an export can fail, and what to do about it.

The tree and the names are those that users of mixpanel_data catch::

    MixpanelDataError
    ├── APIError                    Mixpanel answered, and not with events
    │   ├── AuthenticationError     the credentials are not accepted
    │   ├── LineTooLongError        200, but a line is longer than the maximum
    │   ├── NetworkError            no connection, or it broke, or it stalled
    │   ├── QueryError              the request is wrong, or not permitted
    │   │   └── FutureDateError     the last day has not begun yet
    │   ├── RateLimitError          the project's quota is spent
    │   ├── ServerError             5xx
    │   └── TruncatedError          200, but the body is not provably whole
    ├── ConfigError                 no usable credentials or settings
    │   ├── AccountExistsError
    │   └── AccountNotFoundError
    ├── DatabaseError               the DuckDB file cannot be opened or written
    │   ├── DatabaseLockedError
    │   └── DatabaseNotFoundError
    ├── DateRangeTooLargeError
    ├── ExportRunningError          this process already exports into that file
    ├── LedgerMismatchError         the table does not hold what the ledger says
    ├── SelectionError              the days asked for would mix with another selection
    └── TableError
        ├── TableExistsError
        ├── TableFormatError
        └── TableNotFoundError

Arguments out of range raise `ArgumentError`, a `ValueError`, before anything else happens.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import ClassVar, Unpack

from mixpanel_export._advice import Context, Problem


class ArgumentError(Problem, ValueError):
    """An argument is out of range, or not of its kind; a `ValueError`.

    The sentence is `{argument} {reason}; {advice}`, such as `limit must be between 1 and 100000, got 0`.
    """

    argument: str

    def __init__(self, argument: str, reason: str, *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice, argument=argument)

    def _reason(self, name: Callable[[str], str]) -> str:
        return f"{name(self.argument)} {self.reason}"


class AdvisoryWarning(Problem, UserWarning):
    """A warning with its reason and advice as data."""


class MixpanelDataError(Problem):
    """The base of every error that an export raises on purpose.

    `str(error)` and `message` are one sentence for people, made of `days`, `reason` and `advice`. `code` and
    `details` are for programs.
    """

    code: ClassVar[str] = "UNKNOWN_ERROR"

    def __init__(
        self,
        message: str,
        *,
        advice: str | None = None,
        argument: str | None = None,
        days: object = None,
        **details: object,
    ) -> None:
        super().__init__(message, advice=advice, argument=argument, days=days)
        self.details = details

    def to_dict(self) -> dict[str, object]:
        """Return `code`, `message` and `details`, ready for JSON."""
        return {"code": self.code, "message": self.message, "details": self.details}


class APIError(MixpanelDataError):
    """Mixpanel answered with something other than events.

    `status_code` is None where no status line arrived; `response_body` is at most its first 500 bytes.
    """

    code = "API_ERROR"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        response_body: str | None = None,
        **context: Unpack[Context],
    ) -> None:
        super().__init__(message, status_code=status_code, response_body=response_body, **context)
        self.status_code = status_code
        self.response_body = response_body


class AuthenticationError(APIError):
    """The credentials are wrong, expired, or belong to another region."""

    code = "AUTH_FAILED"


class LineTooLongError(APIError):
    """The status was 200, but a line is longer than the maximum, as it would be again; nothing is kept.

    `response_body` holds the beginning of that line.
    """

    code = "LINE_TOO_LONG"


class NetworkError(APIError):
    """The connection could not be made, broke, or went silent.

    `mid_answer` says that the answer had begun, or did not begin in time, so its size may be the reason.
    """

    code = "HTTP_ERROR"

    def __init__(self, message: str, *, mid_answer: bool = False, **context: Unpack[Context]) -> None:
        super().__init__(message, **context)
        self.mid_answer = mid_answer


class QueryError(APIError):
    """The request is malformed, or the plan or the permissions do not allow it.

    `first_day` is the first day of the plan's history where the request began before it, else None.
    """

    code = "QUERY_FAILED"

    def __init__(
        self,
        message: str,
        *,
        first_day: date | None = None,
        status_code: int | None = None,
        response_body: str | None = None,
        **context: Unpack[Context],
    ) -> None:
        super().__init__(message, status_code=status_code, response_body=response_body, **context)
        self.first_day = first_day


class FutureDateError(QueryError):
    """The last day asked for has not begun in the project's time zone; only the batch with that day fails."""

    code = "FUTURE_DATE"


class RateLimitError(APIError):
    """The project's quota is spent; `retry_after` is in seconds, None where the server gave none."""

    code = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = 429,
        response_body: str | None = None,
        retry_after: float | None = None,
        **context: Unpack[Context],
    ) -> None:
        super().__init__(message, status_code=status_code, response_body=response_body, **context)
        self.details["retry_after"] = retry_after
        self.retry_after = retry_after


class ServerError(APIError):
    """Mixpanel failed to answer (5xx, or its own time-out); `retry_after` is in seconds, None where it named none."""

    code = "SERVER_ERROR"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        response_body: str | None = None,
        retry_after: float | None = None,
        **context: Unpack[Context],
    ) -> None:
        super().__init__(message, status_code=status_code, response_body=response_body, **context)
        self.retry_after = retry_after


class TruncatedError(APIError):
    """The status was 200, but the body is not provably whole; nothing of it is kept."""

    code = "TRUNCATED"


class ConfigError(MixpanelDataError):
    """No usable credentials or settings were found."""

    code = "CONFIG_ERROR"


class AccountExistsError(ConfigError):
    """The configuration file has an account of that name already."""

    code = "ACCOUNT_EXISTS"

    def __init__(self, message: str, *, account_name: str, **context: Unpack[Context]) -> None:
        super().__init__(message, account_name=account_name, **context)
        self.account_name = account_name


class AccountNotFoundError(ConfigError):
    """The configuration file has no account of that name."""

    code = "ACCOUNT_NOT_FOUND"

    def __init__(
        self,
        message: str,
        *,
        account_name: str,
        available_accounts: Sequence[str],
        **context: Unpack[Context],
    ) -> None:
        available = list(available_accounts)
        super().__init__(message, account_name=account_name, available_accounts=available, **context)
        self.account_name = account_name
        self.available_accounts = available


class DatabaseError(MixpanelDataError):
    """The DuckDB file cannot be opened or written; `db_path` names it."""

    code = "DATABASE_ERROR"

    def __init__(self, message: str, *, db_path: str, **context: Unpack[Context]) -> None:
        super().__init__(message, db_path=db_path, **context)
        self.db_path = db_path


class DatabaseLockedError(DatabaseError):
    """Another process holds the DuckDB file; `holding_pid` is None where DuckDB does not tell."""

    code = "DATABASE_LOCKED"

    def __init__(
        self, message: str, *, db_path: str, holding_pid: int | None, **context: Unpack[Context]
    ) -> None:
        super().__init__(message, db_path=db_path, **context)
        self.details["holding_pid"] = holding_pid
        self.holding_pid = holding_pid


class DatabaseNotFoundError(DatabaseError, FileNotFoundError):
    """There is no DuckDB file at that path."""

    code = "DATABASE_NOT_FOUND"


class DateRangeTooLargeError(MixpanelDataError):
    """One request for the whole range would be too long; export in parallel instead."""

    code = "DATE_RANGE_TOO_LARGE"

    def __init__(
        self,
        message: str,
        *,
        from_date: str,
        to_date: str,
        days_requested: int,
        max_days: int,
        **context: Unpack[Context],
    ) -> None:
        super().__init__(
            message,
            from_date=from_date,
            to_date=to_date,
            days_requested=days_requested,
            max_days=max_days,
            **context,
        )
        self.from_date = from_date
        self.to_date = to_date
        self.days_requested = days_requested
        self.max_days = max_days


class ExportRunningError(MixpanelDataError):
    """This process is already exporting into that DuckDB file."""

    code = "EXPORT_RUNNING"


class LedgerMismatchError(MixpanelDataError):
    """The table does not hold the rows that the ledger vouches for, or others too.

    `batch` is the `export_batch` of the rows, None where they name none.
    """

    code = "LEDGER_MISMATCH"

    def __init__(self, message: str, *, batch: int | None, **context: Unpack[Context]) -> None:
        super().__init__(message, batch=batch, **context)
        self.batch = batch


class SelectionError(MixpanelDataError):
    """Days asked for are already held under a selection that may share events with this one."""

    code = "SELECTION_CONFLICT"


class TableError(MixpanelDataError):
    """The state of the table does not fit the mode; `table_name` names it."""

    code = "TABLE_ERROR"

    def __init__(self, message: str, *, table_name: str, **context: Unpack[Context]) -> None:
        super().__init__(message, table_name=table_name, **context)
        self.table_name = table_name


class TableExistsError(TableError):
    """The table exists and the mode is `create`."""

    code = "TABLE_EXISTS"


class TableFormatError(TableError):
    """The table exists, but another program made it, or a newer release of this one."""

    code = "TABLE_FORMAT"


class TableNotFoundError(TableError):
    """The table does not exist and the mode is `append`."""

    code = "TABLE_NOT_FOUND"
