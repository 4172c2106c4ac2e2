"""The errors of this package. An invalid argument raises `ArgumentError`, a `ValueError`, before anything else happens.

The names and the hierarchy are the same as in mixpanel_data::

    MixpanelDataError
    ├── APIError                    a request failed
    │   ├── AuthenticationError     Mixpanel does not accept the credentials
    │   ├── LineTooLongError        status 200, but a line exceeds the maximum length
    │   ├── NetworkError            no connection, or it broke or stalled
    │   ├── QueryError              the request is invalid or not permitted
    │   │   └── FutureDateError     the last day has not begun yet
    │   ├── RateLimitError          the project's quota is used up
    │   ├── ServerError             a temporary failure, such as status 5xx
    │   ├── SnapshotError           the pages of profiles do not form a complete set
    │   └── TruncatedError          status 200, but the body is not proven complete
    ├── ConfigError                 credentials or settings are missing or invalid
    │   ├── AccountExistsError
    │   ├── AccountNotFoundError
    │   └── RegionError             Mixpanel has no such region
    ├── DatabaseError               the DuckDB file cannot be opened or written
    │   ├── DatabaseLockedError
    │   └── DatabaseNotFoundError
    ├── DateRangeTooLargeError
    ├── ExportRunningError          this process already exports into the file
    ├── LedgerMismatchError         the table differs from the ledger
    ├── SelectionError              the table has these days with another selection
    └── TableError
        ├── TableExistsError
        ├── TableFormatError
        └── TableNotFoundError
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import ClassVar, Unpack

from mixpanel_export._error_base import Context, Problem, ResponseContext


class ArgumentError(Problem, ValueError):
    """An argument is out of range or has the wrong type. Example: `limit must be between 1 and 100000, got 0`."""

    argument: str

    def __init__(self, argument: str, reason: str, *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice, argument=argument)

    def _reason(self, name: Callable[[str], str]) -> str:
        return f"{name(self.argument)} {self.reason}"


class AdvisoryWarning(Problem, UserWarning):
    """A warning whose reason and advice are separate attributes."""


class MixpanelDataError(Problem):
    """The base class of this package's errors, except `ArgumentError`.

    `str(error)` and `message` are one sentence for people, which joins `days`, `reason` and `advice`. `code` and
    `details` are for programs. If there is advice, it is also in `details["suggestion"]`.
    """

    code: str = "UNKNOWN_ERROR"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        *,
        advice: str | None = None,
        argument: str | None = None,
        days: object = None,
        **more: object,
    ) -> None:
        super().__init__(message, advice=advice, argument=argument, days=days)
        self.code = code or type(self).code
        self.details = {**(details or {}), **more}
        if advice is not None:
            self.details["suggestion"] = str(self.advice)

    def to_dict(self) -> dict[str, object]:
        """Return `code`, `message` and `details`, ready for JSON."""
        return {"code": self.code, "message": self.message, "details": self.details}


class APIError(MixpanelDataError):
    """A request failed.

    `status_code` is None if no status line was received. `response_body` has at most the first 500 bytes of the body.
    The `request_` attributes describe the request, without credentials. Those that are not None are also in `details`.
    """

    code = "API_ERROR"
    _sentence: ClassVar[str] = "the request failed"
    _status: ClassVar[int | None] = None

    def __init__(self, message: str = "", **context: Unpack[ResponseContext]) -> None:
        self.request_method = context.pop("request_method", None)
        self.request_url = context.pop("request_url", None)
        self.request_params = context.pop("request_params", None)
        self.request_body = context.pop("request_body", None)
        self.status_code = context.setdefault("status_code", self._status)
        self.response_body = context.setdefault("response_body", None)
        super().__init__(message or self._sentence, **context)
        request = {name: value for name, value in vars(self).items() if name.startswith("request_")}
        self.details.update((name, value) for name, value in request.items() if value is not None)


class AuthenticationError(APIError):
    """The credentials are wrong, expired, or belong to another region."""

    code = "AUTH_FAILED"
    _sentence = "Mixpanel does not accept the credentials"
    _status = 401


class LineTooLongError(APIError):
    """The status was 200, but a line is too long. Nothing is stored. `response_body` has the start of that line."""

    code = "LINE_TOO_LONG"


class NetworkError(APIError):
    """The connection could not be opened, broke, or delivered no data for too long.

    `mid_answer` is true if the connection failed after the start of the response, or if the response did not start in
    time. The amount of data may then be the cause.
    """

    code = "HTTP_ERROR"

    def __init__(
        self, message: str = "", *, mid_answer: bool = False, **context: Unpack[ResponseContext]
    ) -> None:
        super().__init__(message, **context)
        self.mid_answer = mid_answer


class QueryError(APIError):
    """The request is invalid, or the plan or the permissions do not allow it.

    If the request asked for days before the start of the plan's history, `first_day` is the first day of that history;
    otherwise, it is None. For an SQL query, `status_code` is 0.
    """

    code = "QUERY_FAILED"
    _sentence = "the query failed"
    _status = 400

    def __init__(
        self, message: str = "", *, first_day: date | None = None, **context: Unpack[ResponseContext]
    ) -> None:
        super().__init__(message, **context)
        self.first_day = first_day


class FutureDateError(QueryError):
    """The last day has not begun in the project's time zone. Only the batch with that day fails."""

    code = "FUTURE_DATE"


class RateLimitError(APIError):
    """The project's quota is used up. `retry_after` is in seconds, or None if the server did not specify it."""

    code = "RATE_LIMITED"
    _sentence = "the project's quota is used up"
    _status = 429

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, **context: Unpack[ResponseContext]
    ) -> None:
        super().__init__(message, **context)
        self.details["retry_after"] = retry_after
        self.retry_after = retry_after


class ServerError(APIError):
    """The server failed: status 5xx, 408, 409, 421, 425 or 499, or 400 if Mixpanel reports its own time-out.

    `retry_after` is in seconds, or None if the server did not specify it.
    """

    code = "SERVER_ERROR"
    _sentence = "the server failed"
    _status = 500

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, **context: Unpack[ResponseContext]
    ) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class SnapshotError(APIError):
    """The pages of profiles do not form a complete set, even after new attempts. None of them is stored."""

    code = "SNAPSHOT_INCOMPLETE"


class TruncatedError(APIError):
    """The status was 200, but the body is not proven complete. None of it is stored."""

    code = "TRUNCATED"


class ConfigError(MixpanelDataError):
    """Credentials or settings are missing or invalid."""

    code = "CONFIG_ERROR"


class AccountExistsError(ConfigError):
    """The configuration file already has an account with that name."""

    code = "ACCOUNT_EXISTS"

    def __init__(self, account_name: str, message: str = "", **context: Unpack[Context]) -> None:
        super().__init__(
            message or f"account {account_name!r} already exists", account_name=account_name, **context
        )
        self.account_name = account_name


class AccountNotFoundError(ConfigError):
    """The configuration file has no account with that name."""

    code = "ACCOUNT_NOT_FOUND"

    def __init__(
        self,
        account_name: str,
        available_accounts: Iterable[str] | None = None,
        message: str = "",
        **context: Unpack[Context],
    ) -> None:
        available = list(available_accounts or ())
        text = message or f"there is no account {account_name!r}"
        super().__init__(text, account_name=account_name, available_accounts=available, **context)
        self.account_name = account_name
        self.available_accounts = available


class RegionError(ConfigError, ValueError):
    """Mixpanel has no such region. This is a `ValueError`."""


class DatabaseError(MixpanelDataError):
    """The DuckDB file `db_path` cannot be opened or written."""

    code = "DATABASE_ERROR"

    def __init__(self, message: str, *, db_path: str, **context: Unpack[Context]) -> None:
        super().__init__(message, db_path=db_path, **context)
        self.db_path = db_path


class DatabaseLockedError(DatabaseError):
    """Another process has the DuckDB file open. `holding_pid` is None if DuckDB does not report the process."""

    code = "DATABASE_LOCKED"

    def __init__(
        self, db_path: str, holding_pid: int | None = None, message: str = "", **context: Unpack[Context]
    ) -> None:
        super().__init__(message or f"{db_path} is in use by another process", db_path=db_path, **context)
        self.details["holding_pid"] = holding_pid
        self.holding_pid = holding_pid


class DatabaseNotFoundError(DatabaseError, FileNotFoundError):
    """There is no DuckDB file at the path. This is a `FileNotFoundError`."""

    code = "DATABASE_NOT_FOUND"

    def __init__(self, db_path: str, message: str = "", **context: Unpack[Context]) -> None:
        super().__init__(message or f"there is no file {db_path}", db_path=db_path, **context)


class DateRangeTooLargeError(MixpanelDataError):
    """The range is too long for one request."""

    code = "DATE_RANGE_TOO_LARGE"

    def __init__(
        self,
        from_date: str,
        to_date: str,
        days_requested: int,
        max_days: int = 100,
        **context: Unpack[Context],
    ) -> None:
        self.from_date, self.to_date = from_date, to_date
        self.days_requested, self.max_days = days_requested, max_days
        context.setdefault("days", f"{from_date} to {to_date}")
        text = f"one request can cover at most {max_days} days, got {days_requested}"
        super().__init__(text, details=dict(vars(self)), **context)  # the four attributes


class ExportRunningError(MixpanelDataError):
    """This process is already exporting into the DuckDB file."""

    code = "EXPORT_RUNNING"


class LedgerMismatchError(MixpanelDataError):
    """The table's rows do not match the ledger. `batch` is the `export_batch` of these rows, or None."""

    code = "LEDGER_MISMATCH"

    def __init__(self, message: str, *, batch: int | None, **context: Unpack[Context]) -> None:
        super().__init__(message, batch=batch, **context)
        self.batch = batch


class SelectionError(MixpanelDataError):
    """The table already holds these days with another selection, which may share events with this one."""

    code = "SELECTION_CONFLICT"


class TableError(MixpanelDataError):
    """The table `table_name` cannot be used in this mode."""

    code = "TABLE_ERROR"
    _sentence: ClassVar[str] = "table {} cannot be used"

    def __init__(self, table_name: str, message: str = "", **context: Unpack[Context]) -> None:
        super().__init__(message or self._sentence.format(table_name), table_name=table_name, **context)
        self.table_name = table_name


class TableExistsError(TableError):
    """The table exists and the mode is `create`."""

    code = "TABLE_EXISTS"
    _sentence = "table {} already exists"


class TableFormatError(TableError):
    """The table exists, but another program or a newer release wrote it."""

    code = "TABLE_FORMAT"


class TableNotFoundError(TableError):
    """The table does not exist and the mode is `append`."""

    code = "TABLE_NOT_FOUND"
    _sentence = "table {} does not exist"
