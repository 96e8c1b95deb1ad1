"""Files of the model hub: from its cache, else downloaded, else one clear error within seconds."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

_PROBE_SECONDS = 10.0


def hub_file(repository: str, filename: str) -> Path:
    """Path of a file of a hub repository in the local cache; it is downloaded when it is not there.

    Raises:
        OSError: it is not in the cache and cannot be downloaded.
    """
    try:
        return Path(hf_hub_download(repository, filename, local_files_only=True))
    except HFValidationError as error:
        raise OSError(f"'{repository}' is no name of a hub repository") from error
    except LocalEntryNotFoundError:
        pass
    try:
        # A download without a network retries for half a minute; this request is sent once, so it fails soon.
        HfApi().model_info(repository, timeout=_PROBE_SECONDS)
        return Path(hf_hub_download(repository, filename))
    except RepositoryNotFoundError as error:
        raise OSError(f"the hub has no repository '{repository}', or a private one: check the spelling") from error
    except Exception as error:  # the hub's client raises its own kinds and those of its HTTP library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"'{filename}' of '{repository}' is not in the hub's cache and cannot be downloaded ({reason})"
        ) from error
