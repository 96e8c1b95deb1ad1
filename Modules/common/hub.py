"""Files of the model hub: from its cache, else downloaded, else one clear error within seconds; and folders to it."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from Modules.common.plain_json import parse_json, read_text

__all__ = ["hub_file", "hub_folder", "is_hub_name", "kind_on_hub", "push_folder"]

_INDEX, _CONFIG = "model_index.json", "config.json"
_PROBE_SECONDS = 10.0
# What a model folder consists of; a repository may hold anything beside it, which is neither fetched nor sent.
_MODEL_FILES = ("*.json", "*.safetensors", "README.md")


def is_hub_name(model: str | os.PathLike[str]) -> bool:
    """Whether a name that is no path here may be one of the hub: ``owner/repository``."""
    name = os.fspath(model)
    owner, _, repository = name.partition("/")
    plain = all(part and not part.startswith((".", "~")) for part in (owner, repository)) and "/" not in repository
    # output/no_such_run is meant as a path: nothing is asked over the network for it.
    return plain and "\\" not in name and not Path(name).exists() and not Path(owner).is_dir()


def kind_on_hub(repository: str) -> str:
    """The file by which a hub repository is known to hold a model of this project.

    Returns:
        ``model_index.json`` or ``config.json``; empty for a model of transformers, or of anybody else.

    Raises:
        OSError: neither is in the cache or can be downloaded.
    """
    cached = [name for name in (_INDEX, _CONFIG) if isinstance(try_to_load_from_cache(repository, name), str)]
    try:
        path = hub_file(repository, cached[0] if cached else _CONFIG)
    except OSError:
        path = hub_file(repository, _INDEX)  # whole models have no config of their own
    document = parse_json(read_text(path))
    ours = isinstance(document, dict) and "_class_name" in document and "model_type" not in document
    return path.name if ours else ""


def hub_folder(repository: str, whole: str) -> Path:
    """The folder of a hub repository in the local cache; its files are downloaded when they are not there.

    Args:
        repository: its name, ``owner/repository``.
        whole: a file that a whole model has, such as ``model_index.json``, by which the cache is known to hold one.

    Raises:
        OSError: it is not in the cache and cannot be downloaded, or has no such file.
    """
    hub_file(repository, whole)
    try:
        # The hub's client asks for what changed, file by file; without a network it takes the cache as it is.
        return Path(snapshot_download(repository, allow_patterns=list(_MODEL_FILES), etag_timeout=_PROBE_SECONDS))
    except Exception as error:  # the hub's client raises its own kinds and those of its HTTP library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"the model '{repository}' cannot be downloaded from the hub ({reason})") from error


def push_folder(folder: Path, repository: str, private: bool = False) -> str:
    """Send a model folder, its card included, to a repository of the hub, which is made where there is none.

    Args:
        folder: the model folder. What is no JSON, safetensors or card in it stays here.
        repository: its name, ``owner/repository``.
        private: whether a new repository is hidden from others.

    Returns:
        The address of what was sent.

    Raises:
        OSError: the hub cannot be reached, or refuses; the client logs in with ``hf auth login``.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        message = "Model folder of D³-RSMDE"
        sent = api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=list(_MODEL_FILES), commit_message=message
        )
    except Exception as error:  # as above
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"'{folder}' cannot be sent to '{repository}': {reason}") from error
    return str(sent)


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
