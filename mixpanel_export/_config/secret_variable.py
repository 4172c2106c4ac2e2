"""Reads the secret from `MP_SECRET` or from the file in `MP_SECRET_FILE`.

The file is for container platforms, because they mount secrets as files.
"""

from collections.abc import Mapping

from mixpanel_export._config.environment import decoded, expanded, variable
from mixpanel_export._config.masking import Masked, cleaned_secret
from mixpanel_export.errors import ConfigError


def secret_variable(environ: Mapping[str, str] | None = None) -> Masked:
    """Return the value of `MP_SECRET`, else the first line of the file `MP_SECRET_FILE`; empty if both are unset.

    Raises:
        ConfigError: The file cannot be read, is not text, or is empty.
    """
    if (secret := variable("MP_SECRET", environ)) is not None:
        return cleaned_secret(secret)
    if (name := variable("MP_SECRET_FILE", environ)) is None:
        return Masked("")
    try:
        secret = decoded(expanded(name).read_bytes()).partition("\n")[0]
    except OSError as error:
        raise ConfigError(
            f"the secret in MP_SECRET_FILE, {name}, cannot be read ({error.strerror})",
            advice="give this user permission to read the file, or set MP_SECRET",
        ) from error
    except UnicodeDecodeError:
        # The cause is dropped, because it contains the secret.
        raise ConfigError(
            f"the secret in MP_SECRET_FILE, {name}, is not text in UTF-8", advice="write the file again"
        ) from None
    if not (cleaned := cleaned_secret(secret)):
        raise ConfigError(
            f"the first line of MP_SECRET_FILE, {name}, is empty",
            advice="write the secret into it, or set MP_SECRET",
        )
    return cleaned
